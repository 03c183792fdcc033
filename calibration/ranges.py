"""From a histogram to the range that is mapped onto integers: min-max, percentile, entropy, squared error.

In: :class:`~calibration.histogram.Histogram` (and the exact extremes). Out: :class:`Range`. Pure functions; numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import SIDE_BINS, Histogram
from calibration.quantise import IntegerGrid, fit_grid, make_grid

PERCENTILES = (99.9, 99.99, 99.999)
#: TensorRT's calibrator tries every threshold past 128 of 2048 bins; this many spread over the range find the same one
#: to 1 %, in a fraction of the time.
_CANDIDATES = 128
#: A count is whole; a part of one left over from a percentage is rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is mapped onto the integers: [low, high], always around 0, and why."""

    low: float
    high: float
    method: str

    def fit(self, bits: int, *, symmetric: bool) -> tuple[float, int, IntegerGrid]:
        """Return (scale as a float32 value, zero point, grid)."""
        grid = make_grid(bits, symmetric=symmetric)
        scale, zero_point = fit_grid(np.array([self.low], np.float32), np.array([self.high], np.float32), grid)
        return float(scale[0]), int(zero_point[0]), grid


def find_minmax(histogram: Histogram) -> Range:
    """Return the outer edges of the outermost bins that hold anything: the extremes, to a bin's width."""
    return _clip(histogram, 0.0, "minmax")


def find_percentile(histogram: Histogram, percentile: float, *, symmetric: bool) -> Range:
    """Return the range that holds ``percentile`` per cent of the values.

    Symmetric: of the magnitudes. Otherwise the rest is cut in equal parts from both ends.
    """
    name = f"percentile {percentile:g}"
    rest = 1 - percentile / 100
    if not symmetric:
        return _clip(histogram, rest / 2, name)
    magnitudes = _fold_sides(histogram)
    outside = magnitudes.sum() - np.cumsum(magnitudes)
    kept = outside <= rest * magnitudes.sum() + _ROUNDING
    high = (int(np.argmax(kept)) + 1) * histogram.width() if magnitudes.any() else 0.0
    return Range(low=-high, high=high, method=name)


def find_mse(histogram: Histogram, bits: int, *, symmetric: bool) -> Range:
    """Return the range with the least squared error of quantising the bins' centres.

    Where a step is not much wider than a bin, the centres say nothing about rounding: there its error inside the range
    is taken as uniform in a step (step**2 / 12).
    """
    full = find_minmax(histogram)
    lower, upper = histogram.edges()
    centres, counts = (lower + upper) / 2, histogram.counts.astype(np.float64)
    used = counts > 0
    centres, counts = centres[used], counts[used]
    best, best_error = full, np.inf
    for ratio in np.arange(1, _CANDIDATES + 1) / _CANDIDATES:
        low, high = _scale_range(full, ratio, symmetric=symmetric)
        candidate = Range(low=low, high=high, method="mse")
        scale, zero_point, grid = candidate.fit(bits, symmetric=symmetric)
        steps = centres / scale
        if scale >= 4 * histogram.width():
            steps = np.rint(steps)
        error = float(
            counts @ np.square(np.clip(steps, grid.low - zero_point, grid.high - zero_point) * scale - centres)
        )
        if scale < 4 * histogram.width():
            error += float(counts[centres != 0].sum()) * scale**2 / 12
        if error <= best_error:
            best, best_error = candidate, error
    return best


def find_entropy(histogram: Histogram, bits: int, *, symmetric: bool) -> Range:
    """Return the range whose quantised distribution is nearest to the clipped original by Kullback-Leibler divergence.

    After S. Migacz, "8-bit inference with TensorRT" (GTC 2017): clipped values are added to the last bin kept, the
    quantised distribution spreads each level's count evenly over the bins of that level that hold anything.
    """
    full = find_minmax(histogram)
    lower, upper = histogram.edges()
    centres, counts = (lower + upper) / 2, histogram.counts.astype(np.float64)
    if symmetric:
        centres, counts = np.abs(centres[SIDE_BINS - 1 :]), _fold_sides(histogram).astype(np.float64)
        centres[0] = 0.0
    best, best_divergence = full, np.inf
    for ratio in np.arange(_CANDIDATES // 16, _CANDIDATES + 1) / _CANDIDATES:
        low, high = _scale_range(full, ratio, symmetric=symmetric)
        scale, _, _ = Range(low=low, high=high, method="entropy").fit(bits, symmetric=symmetric)
        divergence = _diverge(centres, counts, low, high, scale)
        if divergence <= best_divergence:
            best, best_divergence = Range(low=low, high=high, method="entropy"), divergence
    return best


def _diverge(centres: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float, scale: float) -> float:
    """Return KL(clipped, quantised) of one candidate range."""
    inside = (centres >= low) & (centres <= high)
    if not counts[inside].any():
        return float("inf")
    reference = counts[inside]
    levels = np.rint(centres[inside] / scale).astype(np.int64)
    levels -= levels.min()
    occupied = reference > 0
    mass = np.bincount(levels, weights=reference)
    spread = np.bincount(levels, weights=occupied)
    quantised = np.where(occupied, mass[levels] / np.maximum(spread[levels], 1), 0.0)
    clipped = reference.copy()
    clipped[0] += counts[centres < low].sum()
    clipped[-1] += counts[centres > high].sum()
    p, q = clipped / clipped.sum(), quantised / quantised.sum()
    floor = 0.5 / counts.sum()  # the outermost bin may hold clipped values only: count it as half a value, not none
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], floor))).sum())


def _scale_range(full: Range, ratio: float, *, symmetric: bool) -> tuple[float, float]:
    if symmetric:
        high = max(-full.low, full.high) * ratio
        return -high, high
    return full.low * ratio, full.high * ratio


def _clip(histogram: Histogram, tail: float, method: str) -> Range:
    """Return the range without a part ``tail`` of the values at either end; it always holds 0."""
    total = histogram.total()
    if total == 0:
        return Range(low=0.0, high=0.0, method=method)
    lower, upper = histogram.edges()
    running = np.cumsum(histogram.counts)
    first = int(np.argmax(running > tail * total + _ROUNDING))
    last = int(np.argmax(total - running <= tail * total + _ROUNDING))
    return Range(low=min(float(lower[first]), 0.0), high=max(float(upper[last]), 0.0), method=method)


def _fold_sides(histogram: Histogram) -> NDArray[np.int64]:
    """Return the counts by magnitude."""
    magnitudes = histogram.counts[SIDE_BINS - 1 :].copy()
    magnitudes[1:] += histogram.counts[SIDE_BINS - 2 :: -1]
    return magnitudes
