"""The ledger: what a row says of itself, and which rows are shown as one."""

from dataclasses import replace

import pytest

from bench.recordings.ledger import LedgerRow, average_gain, group_rows

ROW = LedgerRow(
    layer="up",
    shape=(64, 16),
    zeros=0.8,
    pattern="unstructured",
    use="CPU sparse kernels, 1x1",
    kernel="SparseLinear 1x1",
    why="2.00 times as fast as dense, in 1x1",
    gain={"1x16": 1.0, "8x128": 4.0},
    dense_bytes=4096,
    shipped_bytes=1024,
)


def test_gains_are_averaged_geometrically():
    assert average_gain(ROW.gain) == pytest.approx(2.0)


def test_a_row_that_ships_dense_saves_nothing_and_keeps_what_was_measured():
    dense = ROW.ship_dense("another candidate won")
    assert (dense.kernel, dense.shipped_bytes, dense.why) == ("dense", 4096, "another candidate won")
    assert dense.gain == ROW.gain
    assert not dense.is_sparse


def test_a_row_that_is_dense_keeps_its_reason():
    dense = replace(ROW, kernel="dense", why="hardly any zeros")
    assert dense.ship_dense("another candidate won") is dense


def test_rows_of_one_shape_pattern_use_and_kernel_are_shown_as_one():
    rows = [
        ROW,
        replace(ROW, layer="down", shape=(16, 64)),
        replace(ROW, layer="up 2"),
        replace(ROW, layer="up 3", kernel="dense"),
        replace(ROW, layer="head", pattern="dense"),
        replace(ROW, layer="up 4", use="GPU 2:4"),
    ]
    groups = [[row.layer for row in group] for group in group_rows(rows)]
    assert groups == [["up", "up 2"], ["down"], ["up 3"], ["up 4"]]
