"""Rounding to nearest: every weight by itself.

In: a matrix, and maybe how much each input matters. Out: :class:`~calibration.weights.blocks.Blocks`. numpy only.
"""

from __future__ import annotations

import numpy as np

from calibration.weights.blocks import BlockFormat, Blocks, FloatArray, Grid, fit_grid, round_to, search_grid

# Rows taken at once: what is computed in between stays in the caches.
_ROWS = 256


def round_to_nearest(rows: FloatArray, layout: BlockFormat, importance: FloatArray | None = None) -> Blocks:
    """Round float32 [rows, depth].

    Args:
        rows: The matrix, an output a row.
        layout: How it is stored.
        importance: float32 [depth], how much an error in that input weighs, for instance its mean square: the span of
            each block is searched for the least error. None takes what each block spans.
    """
    parts = [_round(rows[start : start + _ROWS], layout, importance) for start in range(0, len(rows), _ROWS)]
    grid = Grid(
        steps=np.concatenate([part.grid.steps for part in parts]),
        zeros=np.concatenate([part.grid.zeros for part in parts]),
    )
    levels = np.concatenate([part.levels for part in parts])
    return Blocks(format=layout, depth=rows.shape[1], levels=levels, grid=grid)


def _round(rows: FloatArray, layout: BlockFormat, importance: FloatArray | None) -> Blocks:
    grid = fit_grid(rows, layout) if importance is None else search_grid(rows, layout, importance)
    return round_to(rows, layout, grid)
