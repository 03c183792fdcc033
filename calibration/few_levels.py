"""Weights that are few whole numbers times a scale already: binary, ternary and 4-bit ones, spelled out in floats.

In: a float matrix. Out: its levels and scales, or None. Needs numpy alone.

What a model was trained to is in its weights, whoever trained it. Rounding them to other steps would lose what that
training gained; whole numbers of 8 bits with a scale for each output hold levels of -1, 0 and 1 as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Weights along a row that share a scale where not the whole row does.
BLOCK = 32
# A product of a level and a float32 scale is off by half a step of float32 (6e-8), the scale found again by as much.
_ROUNDING = 1e-6
_MOST = 8
# Shorter groups have few levels by chance.
_SHORTEST_GROUP = 16
# Rows looked at first: other weights are told apart at once.
_FIRST_ROWS = 4

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """``rows[i, b * width + j] == levels[i, b * width + j] * scales[i, b]``, to the rounding of float32.

    ``levels`` is int8 [rows, columns] in -8..7, ``scales`` float32 [rows, groups] of equal width.
    """

    levels: NDArray[np.int8]
    scales: FloatArray

    def spell_out(self) -> FloatArray:
        """Return the floats [rows, columns]."""
        groups = self.scales.shape[1]
        wide: FloatArray = np.repeat(self.scales, self.levels.shape[1] // groups, axis=1)
        return self.levels.astype(np.float32) * wide


def find_levels(rows: FloatArray) -> Levels | None:
    """Return the levels of float32 [rows, columns]: -1, 0 and 1, or else 4 bits; a scale for each row or block of 32.

    None where the weights have more levels, or where there are none to speak of.
    """
    count, columns = rows.shape
    if columns < _SHORTEST_GROUP or not count or not rows.any() or not np.isfinite(rows).all():
        return None
    for width, highest in ((columns, 1), (columns, _MOST), (BLOCK, _MOST)):
        if columns % width:
            continue
        grouped = rows.reshape(count, -1, width)
        if _fit(grouped[:_FIRST_ROWS], highest) is None:
            continue
        found = _fit(grouped, highest)
        if found is not None:
            return found
    return None


def _fit(grouped: FloatArray, highest: int) -> Levels | None:
    """Try, for each group, every whole number that its largest magnitude may be."""
    peak = np.abs(grouped).max(axis=2, keepdims=True)
    # Of a row of zeros any levels do; these take the fewest bits.
    levels = np.ones(grouped.shape, np.int8)
    scales = np.zeros(peak.shape, np.float32)
    left = peak > 0
    for largest in range(1, highest + 1):
        scale = (peak / np.float32(largest)).astype(np.float32)
        steps = np.rint(grouped / np.where(left, scale, np.float32(1)))
        off = np.abs(grouped - steps * scale).max(axis=2, keepdims=True)
        fits = left & (off <= _ROUNDING * peak) & (steps.max(axis=2, keepdims=True) < _MOST)
        levels = np.where(fits, steps, levels).astype(np.int8)
        scales = np.where(fits, scale, scales)
        left &= ~fits
        if not left.any():
            return Levels(levels=levels.reshape(len(grouped), -1), scales=scales[:, :, 0])
    return None
