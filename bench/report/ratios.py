"""How many times as fast as the reference, with bounds. In: a recording or a gate's result. Out: rows and charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.gating.verdict import GateResult
from bench.recordings.recording import Recording
from bench.recordings.summary import compare_with_reference
from bench.report.palette import ACCENT, ALERT, INK, MUTED, WASH
from bench.report.svg import WIDTH, Chart, Margins, Words, draw_chart
from bench.report.ticks import set_ratio_axis
from bench.report.units import VERDICT_WORDS, format_bound, format_ratio, make_printable
from bench.timing.compare import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_HEIGHT = 30.0
_MARGINS = Margins(left=78, right=46, top=4, bottom=24)
_SHAPE_LENGTH = 12
# A bound narrower than this still gets an axis on which it can be seen against 1.
_NARROWEST = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """``label`` at ``shape`` is ``ratio`` times as fast as the reference, between ``low`` and ``high``."""

    label: str
    shape: str
    ratio: float
    low: float
    high: float
    verdict: Verdict


def list_ratios(recording: Recording) -> tuple[Ratio, ...]:
    """Compare each subject with the first at each shape that both were timed at.

    Raises:
        DataError: blocks of one shape that do not pair.
    """
    ratios = []
    for shape in recording.shapes():
        for subject in recording.subjects[1:]:
            found = compare_with_reference(recording, subject.label, shape)
            if found is None:
                continue
            ratios.append(
                Ratio(
                    label=subject.label,
                    shape=shape,
                    ratio=found.ratio,
                    low=found.low,
                    high=found.high,
                    verdict=found.verdict,
                )
            )
    return tuple(ratios)


def draw_ratios(ratios: Sequence[Ratio], reference: str) -> tuple[Chart, ...]:
    """Return one chart for each subject, its shapes below each other, all on the same axis."""
    limits = _find_limits(ratios, 0.0)
    charts = []
    for number, label in enumerate(dict.fromkeys(ratio.label for ratio in ratios)):
        mine = [ratio for ratio in ratios if ratio.label == label]
        words = Words(
            name=f"ratio-{number}",
            title=make_printable(label),
            description=f"Times as fast as {make_printable(reference)}. {_tell(mine)}",
        )
        charts.append(_draw(words, mine, limits, 0.0))
    return tuple(charts)


def draw_gate(gate: GateResult) -> Chart | None:
    """Return the gate's ratios over the band that it allows; None where nothing was timed."""
    if not gate.shapes:
        return None
    ratios = [
        Ratio(label=gate.head, shape=one.shape, ratio=one.ratio, low=one.low, high=one.high, verdict=one.verdict)
        for one in gate.shapes
    ]
    title = f"{make_printable(gate.head)} against {make_printable(gate.base)}"
    words = Words(name="gate", title=title, description=f"Times as fast. {_tell(ratios)}")
    return _draw(words, ratios, _find_limits(ratios, gate.max_regression), gate.max_regression)


def _tell(ratios: Sequence[Ratio]) -> str:
    told = (
        f"{make_printable(one.shape)}: {format_ratio(one.ratio)}, {format_bound(one.low, one.high)}, "
        f"{VERDICT_WORDS[one.verdict]}"
        for one in ratios
    )
    return "; ".join(told) + "."


def _find_limits(ratios: Sequence[Ratio], band: float) -> tuple[float, float]:
    ends = [end for one in ratios for end in (one.low, one.ratio, one.high) if math.isfinite(end) and end > 0]
    low = min(1 / _NARROWEST, 1 / (1 + 1.5 * band), *ends)
    high = max(_NARROWEST, 1 + 1.5 * band, *ends)
    room = (high / low) ** 0.05
    return low / room, high * room


def _draw(words: Words, ratios: Sequence[Ratio], limits: tuple[float, float], band: float) -> Chart:
    return draw_chart(words, _ROW_HEIGHT * len(ratios), _MARGINS, lambda axes: _paint_rows(axes, ratios, limits, band))


def _paint_rows(axes: Axes, ratios: Sequence[Ratio], limits: tuple[float, float], band: float) -> None:
    low, high = limits
    plot = WIDTH - _MARGINS.left - _MARGINS.right
    set_ratio_axis(axes, low, high, "\N{MULTIPLICATION SIGN}")
    axes.set_ylim(_ROW_HEIGHT * len(ratios), 0)
    axes.yaxis.set_visible(False)
    if band:
        axes.axvspan(1 / (1 + band), 1 + band, color=WASH, linewidth=0, zorder=0)
    axes.axvline(1, color=MUTED, linewidth=1.2)
    for row, one in enumerate(ratios):
        middle = _ROW_HEIGHT * (row + 0.5)
        colour = {"faster": ACCENT, "slower": ALERT}.get(one.verdict, MUTED)
        # An open end runs to the edge.
        ends = [max(low, one.low), min(high, one.high)]
        axes.plot(ends, [middle, middle], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot([one.ratio], [middle], "o", color=colour, markersize=7, markeredgewidth=0)
        across = axes.get_yaxis_transform()
        name = make_printable(one.shape, _SHAPE_LENGTH)
        axes.text(-_MARGINS.left / plot, middle, name, transform=across, va="center", color=INK)
        end = 1 + _MARGINS.right / plot
        axes.text(end, middle, format_ratio(one.ratio), transform=across, ha="right", va="center", color=INK)
