"""Axes on which equal ratios are equal distances, with few and round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.report.palette import RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TICKS = 6
# As a share of the axis: closer ones would write over each other.
_CLOSEST = 0.17


def set_ratio_axis(axes: Axes, low: float, high: float, unit: str) -> None:
    """Make the x axis logarithmic from ``low`` to ``high`` (above 0), with few ticks and ``unit`` at the last."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = pick_ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}{unit}" if tick == ticks[-1] else f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0, pad=5)


def pick_ticks(low: float, high: float) -> Sequence[float]:
    """Return a few round numbers from ``low`` to ``high``, so far apart on a logarithmic axis that each can be read."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    wide = high / low >= 8
    locator = LogLocator(subs=(1.0, 2.0, 5.0)) if wide else MaxNLocator(nbins=_MOST_TICKS, steps=[1, 2, 2.5, 5, 10])
    span = math.log(high / low)
    kept: list[float] = []
    for tick in locator.tick_values(low, high):
        if low <= tick <= high and (not kept or math.log(tick / kept[-1]) >= _CLOSEST * span):
            kept.append(float(tick))
    return kept
