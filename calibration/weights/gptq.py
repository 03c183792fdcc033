"""GPTQ: what rounding one weight does to the output, the weights not yet rounded make up for.

After Frantar, Ashkboos, Hoefler & Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (ICLR 2023, arXiv 2210.17323), algorithm 1. In: rows, and the second moments of their inputs.
Out: :class:`~calibration.weights.blocks.Blocks`. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from calibration.weights.blocks import BlockFormat, Blocks, FloatArray, Grid, round_to, search_grid

# Of the mean of the diagonal, what is added to it: the paper's 1 %.
DAMPING = 0.01
# Inputs whose rounding is carried over to all later ones at once (the paper's B); a multiple of every block size.
_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Curvature:
    """Second moments made ready for GPTQ.

    Attributes:
        order: int64 [K], the inputs in the order they are rounded.
        importance: float32 [K], the mean square of each input.
        factor: float32 [K, K] in that order, the upper triangular U with ``inverse(gram) = U^T U``.
        ordered: Whether that order is another than theirs.
    """

    order: NDArray[np.int64]
    importance: FloatArray
    factor: FloatArray
    ordered: bool

    @classmethod
    def prepare(cls, gram: FloatArray, *, ordered: bool = True, damping: float = DAMPING) -> Self:
        """Factorise ``gram`` float32 [K, K].

        Args:
            gram: The mean of ``x x^T``.
            ordered: Start with the inputs of largest mean square ("act-order" of the authors' code). The grids are
                then chosen beforehand, so that blocks stay what they are in the file.
            damping: See :data:`DAMPING`.
        """
        matrix = gram.astype(np.float64)
        power = np.diagonal(matrix).copy()
        # An input that is always zero tells nothing: it is rounded by itself.
        matrix[np.diag_indices_from(matrix)] = np.where(power == 0, 1, power + damping * power.mean())
        order = np.argsort(-power, kind="stable") if ordered else np.arange(len(power))
        inverse = np.linalg.inv(matrix[np.ix_(order, order)])
        factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
        return cls(order=order, importance=power.astype(np.float32), factor=factor.astype(np.float32), ordered=ordered)


def round_gptq(rows: FloatArray, layout: BlockFormat, curvature: Curvature) -> Blocks:
    """Round float32 [rows, K] so that products with inputs like those measured change least."""
    order = curvature.order
    left = np.ascontiguousarray(rows.T[order], np.float32)
    grid = search_grid(rows, layout, curvature.importance)
    done = np.empty_like(left)
    for start in range(0, len(order), _BATCH):
        end = min(start + _BATCH, len(order))
        errors = np.empty((end - start, len(rows)), np.float32)
        for place in range(start, end):
            if not curvature.ordered and place % layout.size == 0:
                _refit(grid, left, place, layout, curvature.importance)
            block = order[place] // layout.size
            steps, zeros = grid.steps[:, block], grid.zeros[:, block]
            levels = np.clip(np.rint(left[place] / steps) + zeros, 0, layout.highest)
            done[place] = (levels - zeros) * steps
            errors[place - start] = (left[place] - done[place]) / curvature.factor[place, place]
            left[place + 1 : end] -= curvature.factor[place, place + 1 : end, None] * errors[place - start]
        left[end:] -= curvature.factor[start:end, end:].T @ errors
    rounded = np.empty_like(done)
    rounded[order] = done
    return round_to(rounded.T, layout, grid)


def _refit(grid: Grid, left: FloatArray, start: int, layout: BlockFormat, importance: FloatArray) -> None:
    """Choose the grid of the block that begins here by what its weights are by now."""
    end = start + layout.size
    found = search_grid(left[start:end].T, layout, importance[start:end])
    grid.steps[:, start // layout.size] = found.steps[:, 0]
    grid.zeros[:, start // layout.size] = found.zeros[:, 0]
