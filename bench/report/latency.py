"""Every run of every subject at one shape, as one dot each. In: a recording. Out: a chart for each shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.recordings.recording import Recording
from bench.report.palette import ACCENT, INK, MUTED
from bench.report.svg import WIDTH, Chart, Margins, Words, draw_chart
from bench.report.ticks import set_ratio_axis
from bench.report.units import TimeUnit, choose_time_unit, format_duration, make_printable
from bench.timing.samples import Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Vector = NDArray[np.float64]

_ROW_HEIGHT = 62.0
_CLOUD_HEIGHT = 30.0
_DOT = 2.4
_LABEL_LENGTH = 30
_MARGINS = Margins(left=3, right=3, top=0, bottom=24)


def draw_latencies(recording: Recording) -> tuple[Chart, ...]:
    """Return one chart for each shape, in the order measured."""
    return tuple(_draw_shape(recording, shape, number) for number, shape in enumerate(recording.shapes()))


def _draw_shape(recording: Recording, shape: str, number: int) -> Chart:
    measured = [
        samples for subject in recording.subjects if (samples := recording.samples(subject.label, shape)) is not None
    ]
    told = "; ".join(
        f"{make_printable(samples.label)}: median {format_duration(samples.quantile_ns(0.5))}, "
        f"p99 {format_duration(samples.quantile_ns(0.99))}, {sum(map(len, samples.ns))} runs"
        for samples in measured
    )
    words = Words(name=f"latency-{number}", title=make_printable(shape), description=f"Duration of each run. {told}.")
    reference = recording.subjects[0].label
    return draw_chart(words, _ROW_HEIGHT * len(measured), _MARGINS, lambda axes: _paint_rows(axes, measured, reference))


def _paint_rows(axes: Axes, measured: Sequence[Samples], reference: str) -> None:
    runs = [np.concatenate([np.asarray(block, np.float64) for block in samples.ns]) for samples in measured]
    lowest, highest = min(map(np.min, runs)), max(map(np.max, runs))
    unit = choose_time_unit(float(lowest))
    low, high = lowest / unit.ns / 1.04, highest / unit.ns * 1.04
    set_ratio_axis(axes, low, high, f" {unit.name}")
    axes.set_ylim(_ROW_HEIGHT * len(measured), 0)
    axes.yaxis.set_visible(False)
    for row, (samples, values) in enumerate(zip(measured, runs, strict=True)):
        colour = MUTED if samples.label == reference else ACCENT
        _paint_title(axes, samples, unit, _ROW_HEIGHT * row)
        _paint_cloud(axes, values / unit.ns, _ROW_HEIGHT * row + 18 + _CLOUD_HEIGHT / 2, colour)


def _paint_title(axes: Axes, samples: Samples, unit: TimeUnit, top: float) -> None:
    across = axes.get_yaxis_transform()
    name = make_printable(samples.label, _LABEL_LENGTH)
    median = f"{unit.format(samples.quantile_ns(0.5))} {unit.name}"
    axes.text(0, top + 12, name, transform=across, color=INK)
    axes.text(1, top + 12, median, transform=across, color=INK, ha="right")


def _paint_cloud(axes: Axes, values: _Vector, middle: float, colour: str) -> None:
    """Paint each run as a dot, those of one place beside each other, and ticks at the median, p90 and p99."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    low, high = axes.get_xlim()
    width = WIDTH - _MARGINS.left - _MARGINS.right
    places = np.log(values / low) / np.log(high / low) * width
    dots = np.unique(np.column_stack([places.round(1), stack_dots(places).round(1)]), axis=0)
    # A dot is a line of no length with round ends: one path for all, a few bytes each.
    points = np.repeat(np.column_stack([low * (high / low) ** (dots[:, 0] / width), middle + dots[:, 1]]), 2, axis=0)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(dots))
    cloud = PathPatch(
        Path(points, codes),
        facecolor="none",
        edgecolor=colour,
        alpha=0.55,
        linewidth=_DOT,
        capstyle="round",
        clip_on=False,
    )
    cloud.set_snap(False)
    axes.add_patch(cloud)
    for share, reach in ((0.5, 1.0), (0.9, 0.5), (0.99, 0.5)):
        place = float(np.quantile(values, share, method="inverted_cdf"))
        half = reach * (_CLOUD_HEIGHT / 2 + 3)
        axes.plot([place, place], [middle - half, middle + half], color=INK, linewidth=1.4 if reach == 1 else 1)


def stack_dots(places: _Vector) -> _Vector:
    """Return how far from the middle each dot goes, so that dots of one place stand beside each other.

    Args:
        places: Where each run lies on the axis, in CSS pixels.

    Returns:
        Offsets within half of the cloud's height either way; the widest place fills it if the dots are many.
    """
    bins = np.floor(places / _DOT).astype(np.int64)
    _, inverse, counts = np.unique(bins, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(places))
    ranks[order] = np.arange(len(places)) - np.repeat(starts, counts)
    gap = min(_DOT, _CLOUD_HEIGHT / max(1, counts.max() - 1))
    offsets: _Vector = (ranks - (counts[inverse] - 1) / 2) * gap
    return offsets
