"""Where the time goes: by operator, by layer, by part. In: a recording with operators. Out: charts and tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.recordings.recording import OpTime, Recording
from bench.report.cells import Cell, Column, Table
from bench.report.palette import ACCENT, INK, MUTED, RULE
from bench.report.svg import SMALL_FONT_SIZE, Chart, Margins, Words, draw_chart
from bench.report.units import MISSING, choose_time_unit, format_duration, format_share, make_printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_HEIGHT = 28.0
_MARGINS = Margins(left=2, right=2, top=2, bottom=6)
_MOST_ROWS = 12
_MOST_LAYERS = 26
_NAME_LENGTH = 30
_NUMBER = re.compile(r"\d+")
NO_MODULE = "(no module)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeOperators:
    """All that is shown of the operators at one shape: ``charts`` by subject, and ``tables`` over all subjects."""

    shape: str
    charts: tuple[tuple[str, tuple[Chart, ...]], ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One way to add up operators. ``by_size`` orders by time, else the order of the layers is kept."""

    name: str
    title: str
    key: Callable[[OpTime], str]
    most: int
    by_size: bool


def name_layer(op: OpTime) -> str:
    """Return the layer: the module's path up to its first number, or the module's parent where there is none."""
    parts = op.module.split(".") if op.module else [NO_MODULE]
    for index, part in enumerate(parts):
        if _NUMBER.fullmatch(part):
            return ".".join(parts[: index + 1])
    return ".".join(parts[:-1] or parts)


def name_part(op: OpTime) -> str:
    """Return the module's path with a star for every number, so that the layers of a stack add up."""
    return ".".join("*" if _NUMBER.fullmatch(part) else part for part in op.module.split(".")) or NO_MODULE


_VIEWS = (
    _View(name="op", title="By operator", key=lambda op: op.op, most=_MOST_ROWS, by_size=True),
    _View(name="layer", title="By layer", key=name_layer, most=_MOST_LAYERS, by_size=False),
    _View(name="part", title="By module, layers added up", key=name_part, most=_MOST_ROWS, by_size=True),
)


def describe_operators(recording: Recording) -> tuple[ShapeOperators, ...]:
    """Return charts and tables for each shape at which operators were timed; empty where none were."""
    shapes = dict.fromkeys(op.shape for subject in recording.subjects for op in subject.ops)
    return tuple(_describe_shape(recording, shape, number) for number, shape in enumerate(shapes))


def _describe_shape(recording: Recording, shape: str, number: int) -> ShapeOperators:
    timed = {one.label: [op for op in one.ops if op.shape == shape] for one in recording.subjects}
    timed = {label: ops for label, ops in timed.items() if ops}
    charts = []
    for place, (label, ops) in enumerate(timed.items()):
        colour = MUTED if label == recording.subjects[0].label else ACCENT
        drawn = tuple(_draw(view, label, ops, timed, f"ops-{number}-{place}-{view.name}", colour) for view in _VIEWS)
        charts.append((label, drawn))
    tables = (
        _tabulate("By operator", "operator", timed, lambda op: op.op),
        _tabulate("By module", "module", timed, lambda op: op.module or NO_MODULE),
    )
    return ShapeOperators(shape=shape, charts=tuple(charts), tables=tables)


def add_up(ops: Sequence[OpTime], key: Callable[[OpTime], str]) -> dict[str, int]:
    """Return nanoseconds by key, in natural order: ``layer.2`` before ``layer.10``."""
    total: dict[str, int] = {}
    for op in ops:
        total[key(op)] = total.get(key(op), 0) + op.ns
    return dict(sorted(total.items(), key=lambda item: (item[0] == NO_MODULE, _split_numbers(item[0]))))


def keep_largest(total: dict[str, int], most: int, *, by_size: bool) -> dict[str, int]:
    """Return at most ``most`` entries; the smallest are put together into the last."""
    ranked = sorted(total, key=lambda name: total[name], reverse=True)
    kept = set(ranked if len(ranked) <= most else ranked[: most - 1])
    order = [name for name in (ranked if by_size else total) if name in kept]
    rest = [name for name in ranked if name not in kept]
    shown = {name: total[name] for name in order}
    return shown | ({f"{len(rest)} others": sum(total[name] for name in rest)} if rest else {})


def _split_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _draw(
    view: _View, label: str, ops: Sequence[OpTime], timed: dict[str, list[OpTime]], name: str, colour: str
) -> Chart:
    shown = keep_largest(add_up(ops, view.key), view.most, by_size=view.by_size)
    whole = sum(op.ns for op in ops)
    # One axis for all subjects: a longer bar is a longer time.
    longest = max(
        max(keep_largest(add_up(each, view.key), view.most, by_size=view.by_size).values()) for each in timed.values()
    )
    told = "; ".join(f"{make_printable(key)} {format_duration(ns)}" for key, ns in shown.items())
    words = Words(name=name, title=view.title, description=f"Time of {make_printable(label)} in one run: {told}.")
    return draw_chart(
        words, _ROW_HEIGHT * len(shown), _MARGINS, lambda axes: _paint_bars(axes, shown, whole, longest, colour)
    )


def _paint_bars(axes: Axes, shown: dict[str, int], whole: int, longest: int, colour: str) -> None:
    axes.set_xlim(0, max(longest, 1))
    axes.set_ylim(_ROW_HEIGHT * len(shown), 0)
    axes.xaxis.set_visible(False)
    axes.yaxis.set_visible(False)
    unit = choose_time_unit(max(shown.values()))
    for row, (name, ns) in enumerate(shown.items()):
        top = _ROW_HEIGHT * row
        _write(axes, 0, top, _shorten_path(name), "left", INK)
        _write(axes, 0.88, top, f"{unit.format(ns)} {unit.name}", "right", INK)
        _write(axes, 1, top, format_share(ns / max(whole, 1)), "right", MUTED)
        axes.barh([top + 20], [max(longest, 1)], height=4, color=RULE, linewidth=0)
        axes.barh([top + 20], [ns], height=4, color=colour, linewidth=0)


def _shorten_path(name: str) -> str:
    """Leave out the first parts of a long path, not parts of words; its end tells modules apart."""
    if len(name) > _NAME_LENGTH and "." in name[-_NAME_LENGTH + 1 :]:
        name = "\N{HORIZONTAL ELLIPSIS}" + name[-_NAME_LENGTH + 1 :].partition(".")[2]
    return make_printable(name, _NAME_LENGTH)


def _write(axes: Axes, place: float, top: float, text: str, side: Literal["left", "right"], colour: str) -> None:
    across = axes.get_yaxis_transform()
    axes.text(place, top + 13, text, transform=across, ha=side, color=colour, fontsize=SMALL_FONT_SIZE)


def _tabulate(title: str, what: str, timed: dict[str, list[OpTime]], key: Callable[[OpTime], str]) -> Table:
    totals = {label: add_up(ops, key) for label, ops in timed.items()}
    names = dict.fromkeys(name for total in totals.values() for name in total)
    unit = choose_time_unit(max(max(total.values()) for total in totals.values()))
    columns = (Column(title=what), *(Column(title=label, unit=unit.name, numeric=True) for label in totals))
    rows = []
    for name in sorted(names, key=lambda name: -max(total.get(name, 0) for total in totals.values())):
        times = (total.get(name) for total in totals.values())
        cells = (Cell(MISSING) if ns is None else Cell(unit.format(ns), sort=ns) for ns in times)
        rows.append((Cell(name), *cells))
    return Table(caption=title, columns=columns, rows=tuple(rows))
