import io
import json
from dataclasses import replace

from rich.console import Console

from bench.recordings.ledger import LedgerRow
from exporter.reporting.report import CandidateRow, Ratio, Report, render_ledger, render_table


def _report():
    rows = (
        CandidateRow(name="float (as traced)", size_bytes=90_800_000, accuracy={"cosine mean": 1.0}, reason="baseline"),
        CandidateRow(
            name="int8-dynamic", size_bytes=23_100_000, chosen=True, reason="fastest within the budget", drop=0.004,
            speed={"8x128": Ratio(ratio=2.5, low=2.41, high=2.6)}, accuracy={"cosine mean": 0.996},
        ),
    )  # fmt: skip
    return Report(
        target="onnxruntime", isa="vnni", timed=True, judged_on="64 held-out samples", metric="cosine mean",
        max_drop=0.01, rows=rows, verdict="int8-dynamic ships", machine={"cpu": "x"}, tier="ran",
    )  # fmt: skip


def test_the_table_shows_size_ratio_bound_accuracy_and_reason():
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render_table(_report()))
    text = console.export_text()
    for shown in ("int8-dynamic", "23.1", "2.50 [2.41, 2.60]", "0.9960", "fastest within the budget", "speed 8x128"):
        assert shown in text


def test_an_open_bound_is_shown_as_unknown_and_is_null_in_json():
    report = _report()
    row = replace(report.rows[1], speed={"8x128": Ratio(ratio=2.5, low=None, high=None)})
    report = replace(report, rows=(report.rows[0], row))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render_table(report))
    assert "2.50 [?, ?]" in console.export_text()
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["rows"][1]["speed"]["8x128"]["high"] is None


def test_the_report_is_json_and_names_the_chosen_row():
    report = _report()
    assert report.chosen().name == "int8-dynamic"
    assert json.loads(json.dumps(report.to_json()))["rows"][1]["speed"]["8x128"]["low"] == 2.41


def test_shapes_are_shown_from_small_to_large():
    speed = {shape: Ratio(ratio=1.0, low=1.0, high=1.0) for shape in ("8x128", "1x128", "1x16")}
    rows = (CandidateRow(name="float", size_bytes=1, speed=speed, chosen=True),)
    table = render_table(replace(_report(), rows=rows))
    headers = [column.header for column in table.columns]
    assert headers[2:5] == ["speed 1x16", "speed 1x128", "speed 8x128"]


def _ledger():
    row = LedgerRow(
        layer="up", shape=(1536, 384), zeros=0.8, pattern="unstructured", use="CPU sparse kernels, 1x1",
        kernel="SparseLinear 1x1", why="2.50 times as fast as dense, in 1x1", gain={"8x128": 2.5},
        dense_bytes=2_359_296, shipped_bytes=595_970,
    )  # fmt: skip
    other = replace(row, layer="up 2", zeros=0.85, gain={"8x128": 3.0}, why="3.00 times as fast as dense, in 1x1")
    dense = replace(row, layer="pooler", shape=(384, 384), zeros=0.0, pattern="dense", kernel="dense", gain={})
    return row, other, dense


def test_the_ledger_shows_layers_alike_in_one_row():
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render_ledger(replace(_report(), ledger=_ledger())))
    text = console.export_text()
    for shown in ("1536x384", "80% to 85%", "2.50 to 3.00", "3.5", "unstructured", "SparseLinear 1x1"):
        assert shown in text
    assert "384x384" not in text.replace("1536x384", "")


def test_a_reason_to_ship_dense_is_not_hidden_by_another():
    row = replace(_ledger()[0], kernel="dense", why="1.47 times as fast as dense, in 1x1, but 0.40 times at 1x1")
    rows = (row, replace(row, layer="up 2", why="too small to gain anything"))
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(render_ledger(replace(_report(), ledger=rows)))
    text = console.export_text()
    assert "0.40 times at 1x1; too small to gain anything" in text


def test_the_ledger_is_json():
    rows = json.loads(json.dumps(replace(_report(), ledger=_ledger()).to_json()))["ledger"]
    assert [row["kernel"] for row in rows] == ["SparseLinear 1x1", "SparseLinear 1x1", "dense"]
    assert rows[0]["gain"] == {"8x128": 2.5}
