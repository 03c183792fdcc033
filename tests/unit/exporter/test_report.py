import io
import json
from dataclasses import replace

from rich.console import Console

from exporter.report import CandidateRow, Ratio, Report, render_table


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
