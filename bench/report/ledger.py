"""What became of the zeros in weights, by subject. In: a recording. Out: tables as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.recordings.ledger import LedgerRow, average_gain, group_rows, join_reasons
from bench.recordings.recording import Recording
from bench.report.cells import Cell, Column, Table
from bench.report.units import MISSING, format_bytes, format_share

_COLUMNS = (
    Column(title="Weight", unit="out x in"),
    Column(title="Layers", numeric=True),
    Column(title="Pattern"),
    Column(title="Zeros", numeric=True),
    Column(title="Good for"),
    Column(title="Ships"),
    Column(title="Gain alone", numeric=True),
    Column(title="Gain in place", numeric=True),
    Column(title="Saved", numeric=True),
    Column(title="Why"),
)


def tabulate_ledgers(recording: Recording) -> tuple[Table, ...]:
    """Return a table for each subject whose export found zeros: one row for layers alike."""
    return tuple(
        Table(caption=one.label, columns=_COLUMNS, rows=tuple(map(_show_group, group_rows(one.ledger))))
        for one in recording.subjects
        if one.ledger
    )


def _show_group(group: Sequence[LedgerRow]) -> tuple[Cell, ...]:
    first = group[0]
    zeros = sum(row.zeros for row in group) / len(group)
    saved = sum(row.dense_bytes - row.shipped_bytes for row in group)
    return (
        Cell(f"{first.shape[0]}x{first.shape[1]}"),
        Cell(str(len(group)), sort=len(group)),
        Cell(first.pattern),
        Cell(format_share(zeros), sort=zeros),
        Cell(first.use),
        Cell(first.kernel, tone="good" if first.is_sparse else ""),
        _show_gain([row.gain for row in group]),
        _show_gain([row.gain_in_place for row in group]),
        Cell(format_bytes(saved), sort=saved),
        Cell(join_reasons(group)),
    )


def _show_gain(gains: Sequence[Mapping[str, float]]) -> Cell:
    """Return the geometric mean over layers and shapes."""
    timed = {f"{place}": average_gain(gain) for place, gain in enumerate(gains) if gain}
    if not timed:
        return Cell(MISSING)
    return Cell(f"{average_gain(timed):.2f}", sort=average_gain(timed))
