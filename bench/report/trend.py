"""How fast each subject was from run to run, and where it changed. In: recordings. Out: charts, a table of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from bench.gating.files import Side
from bench.gating.history import WINDOW
from bench.gating.series import Series, collect_series, is_comparable, is_relative
from bench.gating.steps import Step, find_steps
from bench.recordings.recording import Recording
from bench.report.cells import Cell, Column, Table
from bench.report.palette import ACCENT, ALERT, INK, MUTED, RULE
from bench.report.svg import SMALL_FONT_SIZE, Chart, Margins, Words, draw_chart
from bench.report.units import choose_time_unit, format_change, format_duration, make_printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 120.0
_MARGINS = Margins(left=44, right=4, top=30, bottom=22)
_LABEL_LENGTH = 30
_REFERENCE_LENGTH = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """``lead`` says what is compared; ``table`` lists the steps, None where there are none."""

    lead: str
    charts: tuple[Chart, ...]
    table: Table | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The series of one subject; ``unit`` names its values: milliseconds, or times of the reference."""

    label: str
    series: Series
    steps: tuple[Step, ...]
    values: tuple[float, ...]
    unit: str


def describe_trend(recording: Recording, history: Sequence[Recording]) -> Trend | None:
    """Describe the recent past of each subject, as the gate reads a history; None where there is none to compare.

    Where the recordings hold the same reference beside a subject, its values are ratios to that, so that the moods of
    the machine cancel. Runs of other machines or other references are left out.

    Args:
        recording: The newest run; it decides subjects, shapes and machine.
        history: Earlier runs, oldest first, with or without ``recording``.
    """
    runs = [*(one for one in history if one.run != recording.run), recording]
    lines = []
    for subject in recording.subjects:
        side = Side(recording=recording, subject=subject, place=subject.label)
        entries = [one for one in runs if is_comparable(one, side)][-WINDOW:]
        lines += [_make_line(side, collect_series(entries, side, shape)) for shape in side.shapes()]
    lines = [line for line in lines if len(line.values) > 1]
    if not lines:
        return None
    most = max(len(line.values) for line in lines)
    return Trend(
        lead=f"The newest {most} runs on this machine, oldest first. A line is a level, a step a change that stays.",
        charts=tuple(_draw(line, f"trend-{number}") for number, line in enumerate(lines)),
        table=_tabulate(lines),
    )


def _make_line(side: Side, series: Series) -> _Line:
    unit = choose_time_unit(min(series.values, default=1e6))
    name, size = unit.name, unit.ns
    if is_relative(side):
        reference = make_printable(side.recording.subjects[0].label, _REFERENCE_LENGTH)
        name, size = f"time \N{DIVISION SIGN} {reference}", 1.0
    values = tuple(value / size for value in series.values)
    return _Line(label=side.label, series=series, steps=find_steps(series.values), values=values, unit=name)


def _tabulate(lines: Sequence[_Line]) -> Table | None:
    rows = []
    for line in lines:
        for step in line.steps:
            run = line.series.entries[step.index]
            change = 1 / step.ratio - 1
            rows.append(
                (
                    Cell(line.label),
                    Cell(line.series.shape),
                    Cell(run.started[:10]),
                    Cell(run.commit[:10] if run.commit else "no commit"),
                    Cell(format_change(change), sort=change, tone="bad" if change > 0 else "good"),
                )
            )
    columns = (
        Column(title="Subject"),
        Column(title="Shape", aside=True),
        Column(title="Since"),
        Column(title="Commit"),
        Column(title="Time", numeric=True),
    )
    return Table(caption="Steps", columns=columns, rows=tuple(rows)) if rows else None


def _draw(line: _Line, name: str) -> Chart:
    told = [f"{len(line.values)} runs, the last {format_duration(line.series.times_ns[-1])}"]
    told += [f"{_name_step(line, step)} in time" for step in line.steps] or ["no step"]
    words = Words(
        name=name,
        title=f"{make_printable(line.label, _LABEL_LENGTH)}, {make_printable(line.series.shape)}",
        description=f"{'; '.join(told)}.",
    )
    return draw_chart(words, _HEIGHT, _MARGINS, lambda axes: _paint(axes, line))


def _name_step(line: _Line, step: Step) -> str:
    run = line.series.entries[step.index]
    since = make_printable(run.commit[:10] if run.commit else run.started[:10])
    return f"{format_change(1 / step.ratio - 1)} since {since}"


def _paint(axes: Axes, line: _Line) -> None:
    last = len(line.values) - 1
    axes.set_xlim(-0.5, last + 0.5)
    low, high = min(line.values), max(line.values)
    # Noise of a few percent must not look like a mountain.
    room = max(0.08 * (high - low), 0.04 * low)
    axes.set_ylim(low - room, high + room)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(line.unit, loc="left", x=-0.16, fontsize=SMALL_FONT_SIZE, color=MUTED, pad=14)
    axes.plot(range(last + 1), line.values, "o", color=ACCENT, markersize=4.5, markeredgewidth=0)
    _paint_levels(axes, line)
    entries = line.series.entries
    axes.set_xticks([0, last], _name_ends(entries[0].started, entries[-1].started))
    first_tick, last_tick = axes.get_xticklabels()
    first_tick.set_horizontalalignment("left")
    last_tick.set_horizontalalignment("right")
    axes.tick_params(axis="x", length=0, pad=6)


def _name_ends(first: str, last: str) -> list[str]:
    """Return the two dates, or the two times of one day."""
    part = slice(11, 16) if first[:10] == last[:10] else slice(10)
    return [make_printable(moment[part]) for moment in (first, last)]


def _paint_levels(axes: Axes, line: _Line) -> None:
    bounds = [0, *(step.index for step in line.steps), len(line.values)]
    for start, end in pairwise(bounds):
        level = math.exp(median(map(math.log, line.values[start:end])))
        axes.plot([start - 0.5, end - 0.5], [level, level], color=INK, linewidth=1)
    for step in line.steps:
        place = step.index - 0.5
        axes.axvline(place, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    # The newest is what is asked for; the table names them all.
    for step in line.steps[-1:]:
        axes.annotate(
            _name_step(line, step),
            (1, 1),
            xycoords="axes fraction",
            xytext=(0, 14),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=SMALL_FONT_SIZE,
            color=ALERT if step.ratio < 1 else ACCENT,
        )
