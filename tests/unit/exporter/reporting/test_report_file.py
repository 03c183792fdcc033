"""What an export wrote is read back as it was."""

import json

import pytest

from bench.recordings.ledger import LedgerRow
from exporter.reporting.report import CandidateRow, Ratio, Report
from exporter.reporting.report_file import read_reports
from runtimes.errors import CorruptArtifact


def _report() -> Report:
    speed = {"1x16": Ratio(ratio=2.0, low=1.9, high=None)}
    row = LedgerRow(
        layer="up", shape=(64, 32), zeros=0.9, pattern="unstructured", use="CPU sparse kernels, 1x1",
        kernel="SparseLinear 1x1", why="2.00 times as fast as dense, in 1x1", gain={"1x16": 2.0},
        gain_in_place={"1x16": 1.5}, dense_bytes=8192, shipped_bytes=1024,
    )  # fmt: skip
    return Report(
        target="onnxruntime", isa="vnni", timed=True, judged_on="64 held-out samples", metric="cosine mean",
        max_drop=0.01, rows=(CandidateRow(name="float", size_bytes=1, chosen=True, speed=speed),), verdict="it ships",
        machine={"cpu": "x"}, tier="ran", findings=("one",), ledger=(row,),
    )  # fmt: skip


def test_what_was_written_is_read(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"reports": [_report().to_json()]}))
    assert read_reports(tmp_path / "report.json") == (_report(),)


def test_a_report_from_before_there_was_a_ledger_is_read(tmp_path):
    data = _report().to_json()
    del data["ledger"]
    (tmp_path / "report.json").write_text(json.dumps({"reports": [data]}))
    assert read_reports(tmp_path / "report.json")[0].ledger == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reports": [1]}', '{"reports": [{"rows": []}]}'])
def test_anything_else_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(CorruptArtifact, match="not a report"):
        read_reports(tmp_path / "report.json")


def test_a_ledger_of_something_else_is_refused(tmp_path):
    data = {**_report().to_json(), "ledger": [{"layer": "up"}]}
    (tmp_path / "report.json").write_text(json.dumps({"reports": [data]}))
    with pytest.raises(CorruptArtifact, match="not a report"):
        read_reports(tmp_path / "report.json")
