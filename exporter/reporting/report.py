"""What an export measured and decided, as plain data and as a table.

In: rows filled by the choice. Out: JSON-able data (`report.json`) and a rich table.
Must not import: torch, onnx, a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench.recordings.ledger import LedgerRow, average_gain, group_rows, join_reasons

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Speed against plain float: float time over candidate time, with its confidence bound; above 1 is faster.

    A bound is None where it is open: one round of timing bounds nothing.
    """

    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One candidate: what it is, what it weighs, how fast and how accurate it is, and why it was (not) chosen.

    ``speed`` maps a shape (``8x128``) to the ratio against plain float; empty where the export was not timed.
    ``accuracy`` maps a metric to its value on held-out data. ``drop`` is the loss compared with the budget.
    """

    name: str
    size_bytes: int
    speed: Mapping[str, Ratio] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)
    drop: float = 0.0
    chosen: bool = False
    reason: str = ""


# How far an export went: the graph's rules and numbers were checked; a plan exists; it ran on the hardware it is for.
Tier = Literal["lowered", "built", "ran"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one export for one target.

    ``isa`` is what the files were made for: an ISA level, or GPU generations. ``timed`` is False where they were made
    for another machine; ``tier`` says what was really done, and nothing above it is claimed. ``judged_on`` says which
    data accuracy was measured on, ``verdict`` is the decision in one sentence. ``ledger`` has a row for each linear
    where weights have zeros, and none where they have not. ``prediction`` has by name, for a checkpoint whose recipe
    was planned, what was ``predicted`` and what was ``found``.
    """

    target: str
    isa: str
    timed: bool
    judged_on: str
    metric: str
    max_drop: float
    rows: tuple[CandidateRow, ...]
    verdict: str
    tier: Tier
    machine: Mapping[str, Any]
    findings: tuple[str, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    prediction: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def chosen(self) -> CandidateRow:
        """Return the row that ships."""
        return next(row for row in self.rows if row.chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        return asdict(self)


def render_table(report: Report) -> Table:
    """Return the candidate table for a terminal: one row a candidate, the chosen one in bold."""
    from rich.table import Table

    shapes = sorted({shape for row in report.rows for shape in row.speed}, key=_count_shape)
    metrics = list(dict.fromkeys(metric for row in report.rows for metric in row.accuracy))
    table = Table(
        title=f"{report.target}, {report.isa}, {report.tier}, judged on {report.judged_on}", title_justify="left"
    )
    table.add_column("candidate")
    table.add_column("MB", justify="right")
    for shape in shapes:
        table.add_column(f"speed {shape}", justify="right")
    for metric in metrics:
        table.add_column(metric, justify="right")
    table.add_column("why")
    for row in report.rows:
        cells = [_show_speed(row.speed.get(shape)) for shape in shapes]
        cells += [f"{row.accuracy[metric]:.4f}" if metric in row.accuracy else "-" for metric in metrics]
        style = "bold green" if row.chosen else None
        table.add_row(row.name, f"{row.size_bytes / 1e6:.1f}", *cells, row.reason, style=style)
    return table


def render_ledger(report: Report) -> Table:
    """Return the ledger for a terminal: one row for all layers of one shape, pattern and kernel, with their number."""
    from rich.table import Table

    table = Table(title=f"{report.target}: what zeros in the weights are good for", title_justify="left")
    for header in ("layers", "out x in", "zeros", "gain alone", "in place", "MB saved"):
        table.add_column(header, justify="right")
    for header in ("pattern", "good for", "ships", "why"):
        table.add_column(header)
    for group in group_rows(report.ledger):
        first = group[0]
        cells = [
            str(len(group)),
            f"{first.shape[0]}x{first.shape[1]}",
            _show_range([100 * row.zeros for row in group], "{:.0f}%"),
            _show_gains([row.gain for row in group]),
            _show_gains([row.gain_in_place for row in group]),
            f"{sum(row.dense_bytes - row.shipped_bytes for row in group) / 1e6:.1f}",
            first.pattern,
            first.use,
            first.kernel,
            join_reasons(group),
        ]
        table.add_row(*cells, style="green" if first.is_sparse else None)
    return table


def _show_gains(gains: Sequence[Mapping[str, float]]) -> str:
    means = [average_gain(gain) for gain in gains if gain]
    return _show_range(means, "{:.2f}") if means else "-"


def _show_range(numbers: Sequence[float], form: str) -> str:
    low, high = form.format(min(numbers)), form.format(max(numbers))
    return low if low == high else f"{low} to {high}"


def _count_shape(shape: str) -> tuple[int, ...]:
    """``1x1+128`` -> (1, 1, 128): shapes are shown from small to large, whatever order JSON gave them back in."""
    return tuple(int(part) for part in shape.replace("+", "x").split("x"))


def _show_speed(speed: Ratio | None) -> str:
    return f"{speed.ratio:.2f} [{_show_bound(speed.low)}, {_show_bound(speed.high)}]" if speed else "-"


def _show_bound(bound: float | None) -> str:
    return "?" if bound is None else f"{bound:.2f}"
