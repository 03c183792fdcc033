"""The picture of a report: what is in it, and that it needs nothing from elsewhere."""

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from exporter.reporting.picture import draw_tables, main
from exporter.reporting.report import CandidateRow, Ratio, Report
from exporter.reporting.report_file import read_reports
from runtimes.errors import CorruptArtifact

REPORT = Report(
    tier="ran",
    target="onnxruntime",
    isa="avx2",
    timed=True,
    judged_on="10 held-out texts",
    metric="cosine",
    max_drop=0.01,
    rows=(
        CandidateRow(name="float", size_bytes=90_800_000, speed={"8x128": Ratio(ratio=1, low=1, high=1)}),
        CandidateRow(
            name="int8",
            size_bytes=23_100_000,
            speed={"8x128": Ratio(ratio=1.86, low=1.8, high=1.9)},
            accuracy={"cosine mean": 0.995},
            chosen=True,
            reason="fastest within the budget",
        ),
    ),
    verdict="int8 ships",
    machine={"cpu": "x"},
    findings=("a finding",),
)


def test_a_report_comes_back_from_json(tmp_path):
    path = tmp_path / "report.json"
    open_bound = replace(REPORT.rows[1], speed={"8x128": Ratio(ratio=1.86, low=None, high=None)})
    for report in (REPORT, replace(REPORT, rows=(REPORT.rows[0], open_bound))):
        path.write_text(json.dumps({"reports": [report.to_json()]}, allow_nan=False))
        assert read_reports(path) == (report,)
        assert "<svg" in draw_tables([report])


def test_the_picture_says_what_the_table_says():
    svg = draw_tables([REPORT])
    words = " ".join(ET.fromstring(svg).itertext()).replace("\xa0", " ")
    assert all(word in words for word in ("23.1", "1.86 [1.80, 1.90]", "0.9950", "int8 ships"))
    assert "url(http" not in svg


def test_what_is_no_report_is_named(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match=r"report\.json"):
        read_reports(tmp_path / "report.json")
    assert main([str(tmp_path / "report.json"), str(tmp_path / "t.svg")]) == 8
    assert main([]) == 2
    assert not (tmp_path / "t.svg").exists()
