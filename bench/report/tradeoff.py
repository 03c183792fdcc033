"""What speed costs: latency against size and against accuracy. In: a recording. Out: charts of what is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from bench.recordings.recording import Recording
from bench.report.labels import Box, place_labels
from bench.report.palette import ACCENT, INK, MUTED, PAPER
from bench.report.svg import FONT_SIZE, WIDTH, Chart, Margins, Words, draw_chart
from bench.report.ticks import set_ratio_axis
from bench.report.units import choose_time_unit, format_bytes, format_duration, make_printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 200.0
_MARGINS = Margins(left=46, right=8, top=12, bottom=38)
_LABEL_LENGTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    label: str
    latency_ns: float
    value: float


def draw_tradeoffs(recording: Recording) -> tuple[Chart, ...]:
    """Return latency against size and, for each metric, against accuracy; only where two subjects can be compared.

    Latency is the geometric mean of the medians over the shapes at which every timed subject was timed.
    """
    latencies = _average_latencies(recording)
    charts = []
    sizes = [
        _Point(label=one.label, latency_ns=latencies[one.label], value=one.figures.size_bytes / 1e6)
        for one in recording.subjects
        if one.label in latencies and one.figures.size_bytes
    ]
    if len(sizes) > 1:
        told = [f"{format_bytes(round(point.value * 1e6))}" for point in sizes]
        charts.append(_draw("size", "Size, MB", sizes, told, smaller_is_better=True))
    for number, metric in enumerate(_list_metrics(recording)):
        scores = [
            _Point(label=one.label, latency_ns=latencies[one.label], value=one.accuracy.value)
            for one in recording.subjects
            if one.label in latencies and one.accuracy is not None and one.accuracy.metric == metric
        ]
        if len(scores) > 1:
            told = [f"{metric} {point.value:.4f}" for point in scores]
            charts.append(_draw(f"accuracy-{number}", make_printable(metric), scores, told, smaller_is_better=False))
    return tuple(charts)


def _list_metrics(recording: Recording) -> Sequence[str]:
    return list(dict.fromkeys(one.accuracy.metric for one in recording.subjects if one.accuracy is not None))


def _average_latencies(recording: Recording) -> dict[str, float]:
    medians: dict[str, dict[str, float]] = {}
    for timing in recording.timings:
        samples = recording.samples(timing.label, timing.shape)
        assert samples is not None
        medians.setdefault(timing.label, {})[timing.shape] = samples.median_ns()
    common = set(recording.shapes()).intersection(*medians.values())
    if not common:
        return {}
    return {
        label: math.exp(fmean(math.log(found[shape]) for shape in sorted(common))) for label, found in medians.items()
    }


def find_best(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """Return which points no other beats: (cost, cost), where none is as good in both and better in one."""
    return tuple(not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points) for x, y in points)


def _draw(name: str, axis: str, points: Sequence[_Point], told: Sequence[str], *, smaller_is_better: bool) -> Chart:
    listed = "; ".join(
        f"{make_printable(point.label)}: {format_duration(point.latency_ns)}, {make_printable(text)}"
        for point, text in zip(points, told, strict=True)
    )
    title = f"Latency and {axis.partition(',')[0].lower() if smaller_is_better else axis}"
    words = Words(name=f"tradeoff-{name}", title=title, description=f"{listed}.")

    def paint(axes: Axes) -> None:
        _paint_points(axes, points, axis, smaller_is_better=smaller_is_better)

    return draw_chart(words, _HEIGHT, _MARGINS, paint)


def _paint_points(axes: Axes, points: Sequence[_Point], axis: str, *, smaller_is_better: bool) -> None:
    unit = choose_time_unit(min(point.latency_ns for point in points))
    x = [point.latency_ns / unit.ns for point in points]
    y = [point.value for point in points]
    room = max((max(x) / min(x)) ** 0.12, 1.05)
    set_ratio_axis(axes, min(x) / room, max(x) * room, f" {unit.name}")
    axes.set_xlabel("Latency, geometric mean of the shapes")
    height = max(max(y) - min(y), 0.02 * max(map(abs, y)), 1e-9)
    axes.set_ylim(0 if smaller_is_better else min(y) - 0.25 * height, max(y) + 0.2 * height)
    axes.locator_params(axis="y", nbins=5)
    axes.set_title(axis, loc="left", fontsize=FONT_SIZE - 1, color=MUTED, pad=4)
    best = find_best([(a, b if smaller_is_better else -b) for a, b in zip(x, y, strict=True)])
    for a, b, good in zip(x, y, best, strict=True):
        inside, edge = (ACCENT, ACCENT) if good else (PAPER, MUTED)
        axes.plot(
            [a],
            [b],
            "o",
            markersize=9,
            markeredgewidth=1.5,
            markerfacecolor=inside,
            markeredgecolor=edge,
            clip_on=False,
        )
    _paint_labels(axes, points, x, y)


def _paint_labels(axes: Axes, points: Sequence[_Point], x: Sequence[float], y: Sequence[float]) -> None:
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    room = Box(left=0, bottom=0, right=WIDTH - _MARGINS.left - _MARGINS.right, top=_HEIGHT)
    dots = [
        (math.log(a / low) / math.log(high / low) * room.right, (b - bottom) / (top - bottom) * room.top)
        for a, b in zip(x, y, strict=True)
    ]
    names = [make_printable(point.label, _LABEL_LENGTH) for point in points]
    boxes = place_labels(dots, [len(name) * 0.6 * FONT_SIZE for name in names], FONT_SIZE * 1.25, room)
    for name, (a, b), (left, right), box in zip(names, zip(x, y, strict=True), dots, boxes, strict=True):
        middle = ((box.left + box.right) / 2 - left, (box.bottom + box.top) / 2 - right)
        axes.annotate(name, (a, b), xytext=middle, textcoords="offset points", ha="center", va="center", color=INK)
