"""What calibration learns of a tensor, as a value that merges exactly.

In: arrays, row by row. Out: :class:`TensorStatistics`. The law, tested: any order and any split of the rows give the
same value, bit for bit. numpy only; must not import a runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import Histogram

#: Rows kept of a tensor by default; two halves of 256 rows tell candidate ranges apart.
SAMPLE_ROWS = 512
#: Sums count in multiples of this: a value is rounded to 1e-9 once, and integers add exactly in any order.
SUM_UNIT = 2.0**-30
#: Larger magnitudes would overflow the integer sums; no activation that can be quantised comes near.
LARGEST_MAGNITUDE = 2.0**40
_LIMB = 32
_EXACT = 2.0**53
#: Rows summed at a time: keeps the float64 copy in the cache and the partial sums below 2**53.
_PIECE_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """Statistics of the rows ``[rows, channels]`` of one tensor.

    ``minimum``/``maximum`` (float32) and ``sum_high``/``sum_low`` (int64; sum = (high * 2**32 + low) * SUM_UNIT) are
    per channel. ``sample_keys`` (uint64, ascending) and ``sample`` (float32, one row a key) hold the ``capacity`` rows
    whose hashed identity is smallest: a uniform sample of all rows that merges exactly.
    """

    capacity: int
    rows: int
    zeros: int
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    sum_high: NDArray[np.int64]
    sum_low: NDArray[np.int64]
    histogram: Histogram
    sample_keys: NDArray[np.uint64]
    sample: NDArray[np.float32]

    @classmethod
    def empty(cls, channels: int, capacity: int = SAMPLE_ROWS) -> Self:
        """Return the statistics of no rows."""
        return cls(
            capacity=capacity,
            rows=0,
            zeros=0,
            minimum=np.full(channels, np.inf, np.float32),
            maximum=np.full(channels, -np.inf, np.float32),
            sum_high=np.zeros(channels, np.int64),
            sum_low=np.zeros(channels, np.int64),
            histogram=Histogram.empty(),
            sample_keys=np.zeros(0, np.uint64),
            sample=np.zeros((0, channels), np.float32),
        )

    def update(self, rows: NDArray[np.float32], identities: NDArray[np.uint64]) -> Self:
        """Return the statistics with more rows.

        Args:
            rows: float32 ``[rows, channels]``, finite, below ``LARGEST_MAGNITUDE``.
            identities: uint64 ``[rows]``, different for every row that is ever given.

        Raises:
            ValueError: a value is NaN, Inf or too large.
        """
        if len(rows) == 0:
            return self
        minimum, maximum = rows.min(axis=0), rows.max(axis=0)
        largest = max(-float(minimum.min()), float(maximum.max()))
        if not (np.isfinite(minimum).all() and np.isfinite(maximum).all() and largest < LARGEST_MAGNITUDE):
            raise ValueError("NaN, Inf or a magnitude past 2**40")
        # -0.0 and 0.0 are equal but not the same bytes, and which one min keeps depends on the order.
        minimum, maximum = minimum + np.float32(0), maximum + np.float32(0)
        sum_high, sum_low = _sum_exactly(rows, largest)
        keys = hash_identities(identities)
        chosen = np.argsort(keys)[: self.capacity]
        if len(self.sample_keys) == self.capacity:  # the others would be dropped by merge
            chosen = chosen[keys[chosen] < self.sample_keys[-1]]
        return self.merge(
            type(self)(
                capacity=self.capacity,
                rows=len(rows),
                zeros=int(np.count_nonzero(rows == 0)),
                minimum=minimum,
                maximum=maximum,
                sum_high=sum_high,
                sum_low=sum_low,
                histogram=Histogram.empty().update(rows),
                sample_keys=keys[chosen],
                sample=rows[chosen] + np.float32(0),
            )
        )

    def merge(self, other: Self) -> Self:
        """Return the statistics of both sets of rows.

        Raises:
            ValueError: another number of channels or another capacity.
        """
        if self.minimum.shape != other.minimum.shape or self.capacity != other.capacity:
            raise ValueError("statistics of different tensors")
        sum_high, sum_low = _carry(self.sum_high + other.sum_high, self.sum_low + other.sum_low)
        keys = np.concatenate([self.sample_keys, other.sample_keys])
        chosen = np.argsort(keys)[: self.capacity]
        return type(self)(
            capacity=self.capacity,
            rows=self.rows + other.rows,
            zeros=self.zeros + other.zeros,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            sum_high=sum_high,
            sum_low=sum_low,
            histogram=self.histogram.merge(other.histogram),
            sample_keys=keys[chosen],
            sample=_take_rows(self.sample, other.sample, chosen),
        )

    def absmax(self) -> NDArray[np.float32]:
        """Return the largest magnitude of every channel (0 where there is no row)."""
        if self.rows == 0:
            return np.zeros_like(self.minimum)
        return np.maximum(np.abs(self.minimum), np.abs(self.maximum))

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of every channel, within 1e-9 (0 where there is no row)."""
        total = (self.sum_high * 2.0**_LIMB + self.sum_low) * SUM_UNIT
        return total / max(self.rows, 1)

    def is_dead(self) -> bool:
        """Return whether every value seen was zero."""
        return self.rows > 0 and not self.absmax().any()


def hash_identities(identities: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = identities + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _take_rows(
    first: NDArray[np.float32], second: NDArray[np.float32], chosen: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return rows of the two arrays as if they were one, without joining them."""
    taken = np.empty((len(chosen), first.shape[1]), np.float32)
    from_first = chosen < len(first)
    taken[from_first] = first[chosen[from_first]]
    taken[~from_first] = second[chosen[~from_first] - len(first)]
    return taken


def _sum_exactly(rows: NDArray[np.float32], largest: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the per-channel sums of ``rows`` in SUM_UNIT as (high, low) limbs of 32 bits.

    float64 adds integers exactly up to 2**53; larger values are split into limbs first.
    """
    fits = largest / SUM_UNIT * _PIECE_ROWS < _EXACT
    high, low = np.zeros(rows.shape[1], np.int64), np.zeros(rows.shape[1], np.int64)
    for start in range(0, len(rows), _PIECE_ROWS):
        units = np.multiply(rows[start : start + _PIECE_ROWS], 1 / SUM_UNIT, dtype=np.float64)
        np.rint(units, out=units)
        if fits:
            low += units.sum(axis=0).astype(np.int64)
        else:
            upper = np.floor(units * 2.0**-_LIMB)
            low += (units - upper * 2.0**_LIMB).sum(axis=0).astype(np.int64)
            high += upper.sum(axis=0).astype(np.int64)
        high, low = _carry(high, low)
    return high, low


def _carry(high: NDArray[np.int64], low: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bring ``low`` into [0, 2**32): the one way to write a sum."""
    return high + (low >> _LIMB), low & ((1 << _LIMB) - 1)
