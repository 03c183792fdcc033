"""The ledger of an export in the report of a bench run: kept in the recording, shown as a table."""

from dataclasses import replace

from bench.recordings.ledger import LedgerRow
from bench.recordings.recording import read_recording, write_recording
from bench.report.document import render_report
from bench.report.ledger import tabulate_ledgers
from tests.unit.bench.made_recordings import make_recording

ROW = LedgerRow(
    layer="up",
    shape=(1536, 384),
    zeros=0.8,
    pattern="unstructured",
    use="CPU sparse kernels, 1x1",
    kernel="SparseLinear 1x1",
    why="2.00 times as fast as dense, in 1x1",
    gain={"1x16": 1.0, "8x128": 4.0},
    gain_in_place={"1x16": 3.0, "8x128": 3.0},
    dense_bytes=3_000_000,
    shipped_bytes=1_000_000,
)


def _recording():
    recording = make_recording({"float": {"1x16": 2e6}, "sparse": {"1x16": 1e6}})
    ledger = (ROW, replace(ROW, layer="up 2"), replace(ROW, layer="head", pattern="dense", kernel="dense", gain={}))
    plain, sparse = recording.subjects
    return replace(recording, subjects=(plain, replace(sparse, ledger=ledger)))


def test_a_subject_with_zeros_has_a_table_with_layers_alike_in_one_row():
    (table,) = tabulate_ledgers(_recording())
    assert table.caption == "sparse"
    (row,) = table.rows
    shown = [cell.text.replace("\N{NARROW NO-BREAK SPACE}", " ") for cell in row]
    assert shown[:4] == ["1536x384", "2", "unstructured", "80 %"]
    assert "SparseLinear 1x1" in shown
    assert shown[-4:] == ["2.00", "3.00", "4.0 MB", "2.00 times as fast as dense, in 1x1"]


def test_the_first_reasons_of_a_group_are_shown_once_each():
    recording = make_recording({"float": {"1x16": 2e6}})
    reasons = ("too small", "another candidate won", "too small", "slower at 1x1", "slower at 1x16")
    ledger = tuple(replace(ROW, kernel="dense", why=why) for why in reasons)
    (table,) = tabulate_ledgers(replace(recording, subjects=(replace(recording.subjects[0], ledger=ledger),)))
    assert table.rows[0][-1].text == "too small; another candidate won; and 2 more"


def test_what_was_not_timed_is_missing():
    recording = make_recording({"float": {"1x16": 2e6}})
    ledger = (replace(ROW, kernel="dense", gain={}, gain_in_place={}),)
    (table,) = tabulate_ledgers(replace(recording, subjects=(replace(recording.subjects[0], ledger=ledger),)))
    assert [cell.sort for cell in table.rows[0][-4:-2]] == [None, None]


def test_the_page_shows_it_where_there_is_one():
    page = render_report(_recording())
    assert "<h2>Zeros</h2>" in page
    assert "SparseLinear 1x1" in page
    assert "<h2>Zeros</h2>" not in render_report(make_recording({"float": {"1x16": 2e6}}))


def test_it_comes_back_from_the_file(tmp_path):
    write_recording(tmp_path / "run.json", _recording())
    assert read_recording(tmp_path / "run.json").subjects[1].ledger == _recording().subjects[1].ledger
