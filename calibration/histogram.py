"""A histogram that merges exactly: integer counts over ``(-2**exponent, 2**exponent)``, growing by folding bin pairs.

Every edge is a power of two times an integer, and dividing a float by a power of two is exact, so a value falls into
the same bin whether it is counted on the fine grid and folded later or counted on the coarse one. Any order and any
split of the data therefore give the same histogram, bit for bit. (Bins fitted to the first batch, as ONNX Runtime's
calibrators use, do not have this.) numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

#: Bins on each side of zero. The exponent fits the largest value, so 2048 to 4096 of them are in use on its side: at
#: least 16 for each step of an 8-bit range, fine enough to place a clipping threshold.
SIDE_BINS = 4096
#: Smaller values all fall near the middle; keeps the bin width and its inverse normal float32 numbers.
SMALLEST_EXPONENT = -110
#: Values of a piece fit the second-level cache together with their bin numbers.
_PIECE = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts by magnitude and sign.

    Bin ``SIDE_BINS - 1 + i`` counts the values that truncate to ``i`` in units of ``2**exponent / SIDE_BINS``: the
    middle bin holds ``(-1, 1)`` units, the others one unit each, further from zero. ``exponent`` is the smallest that
    holds all values (never below ``SMALLEST_EXPONENT``); ``counts`` is int64 of ``2 * SIDE_BINS - 1``.
    """

    exponent: int = SMALLEST_EXPONENT
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """Return the histogram of no data."""
        return cls(counts=np.zeros(2 * SIDE_BINS - 1, np.int64))

    def update(self, values: NDArray[np.float32]) -> Self:
        """Return this histogram with all (finite) ``values`` counted."""
        if values.size == 0:
            return self
        flat = np.ascontiguousarray(values).reshape(-1)
        largest = float(max(abs(flat.min()), abs(flat.max())))
        exponent = max(math.frexp(largest)[1], SMALLEST_EXPONENT) if largest else SMALLEST_EXPONENT
        return self.merge(type(self)(exponent=exponent, counts=_count(flat, exponent)))

    def merge(self, other: Self) -> Self:
        """Return the histogram of both data."""
        exponent = max(self.exponent, other.exponent)
        return type(self)(exponent=exponent, counts=self._folded(exponent) + other._folded(exponent))

    def _folded(self, exponent: int) -> NDArray[np.int64]:
        """Return the counts on the grid of a larger ``exponent``."""
        times = min(exponent - self.exponent, SIDE_BINS.bit_length())
        positive, negative = self.counts[SIDE_BINS - 1 :], self.counts[SIDE_BINS - 1 :: -1].copy()
        negative[0] = 0  # the middle bin counts with the positive side
        for _ in range(times):
            positive, negative = _fold(positive), _fold(negative)
        middle = positive[:1] + negative[:1]
        return np.concatenate([negative[:0:-1], middle, positive[1:]])

    def width(self) -> float:
        """Return the width of one bin, in the data's unit."""
        return math.ldexp(1.0, self.exponent) / SIDE_BINS

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and upper edge of every bin."""
        index = np.arange(-(SIDE_BINS - 1), SIDE_BINS, dtype=np.float64)
        return (index - (index <= 0)) * self.width(), (index + (index >= 0)) * self.width()

    def total(self) -> int:
        """Return how many values were counted."""
        return int(self.counts.sum())


def _fold(side: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add neighbouring bins in pairs; the freed half is empty."""
    return np.concatenate([side.reshape(-1, 2).sum(axis=1), np.zeros(SIDE_BINS // 2, np.int64)])


def _count(flat: NDArray[np.float32], exponent: int) -> NDArray[np.int64]:
    counts = np.zeros(2 * SIDE_BINS - 1, np.int64)
    scale = np.float32(math.ldexp(SIDE_BINS, -exponent))
    scaled = np.empty(_PIECE, np.float32)
    bins = np.empty(_PIECE, np.intp)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        count = piece.size
        np.multiply(piece, scale, out=scaled[:count])
        np.copyto(bins[:count], scaled[:count], casting="unsafe")  # truncates towards zero
        bins[:count] += SIDE_BINS - 1
        counts += np.bincount(bins[:count], minlength=2 * SIDE_BINS - 1)
    return counts
