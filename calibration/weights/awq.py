"""AWQ: inputs that are large are divided by a factor and their weights multiplied, which so are rounded more finely.

After Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (MLSys 2024, arXiv
2306.00978), equations 4 and 5. In: the matrices that read one input, and its statistic. Out: the factors. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.weights.blocks import BlockFormat, FloatArray
from calibration.weights.inputs import InputStatistic
from calibration.weights.rtn import round_to_nearest

# Exponents tried (the paper's grid has twice as many); 0 leaves everything as it is.
_ALPHAS = np.arange(0, 1, 0.1)
# Rows of each matrix that the search looks at, evenly spaced.
_SEARCHED_ROWS = 256


def find_scales(
    weights: Sequence[tuple[FloatArray, BlockFormat]], statistic: InputStatistic, sources: NDArray[np.int64]
) -> FloatArray:
    """Return what to divide each input by, float32 [K], 1 throughout where nothing is gained.

    Args:
        weights: float32 [rows, K] of all that read the input, and how each is stored.
        statistic: Of the input.
        sources: int64 [K], the channel that each input comes from: inputs of one channel get one factor.
    """
    sampled = [(rows[:: max(1, len(rows) // _SEARCHED_ROWS)], layout) for rows, layout in weights]
    salience = _average(statistic.absmean, sources)
    best, least = np.ones_like(statistic.absmean), np.inf
    for alpha in _ALPHAS:
        scales = _normalise(salience**alpha)[sources]
        error = sum(_measure(rows, layout, statistic, scales) for rows, layout in sampled)
        if error < least:
            best, least = scales, error
    return best


def _measure(rows: FloatArray, layout: BlockFormat, statistic: InputStatistic, scales: FloatArray) -> float:
    """Return the mean square of what rounding changes at the outputs, summed over them."""
    off = round_to_nearest(rows * scales, layout).spell_out() / scales - rows
    return float(np.vdot(off @ statistic.gram, off))


def _average(values: FloatArray, sources: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.bincount(sources, weights=values) / np.bincount(sources)
    return means


def _normalise(factors: NDArray[np.float64]) -> FloatArray:
    """Bring the middle of the range to 1, as the authors' code does; a channel that is always zero keeps 1."""
    used = factors > 0
    if not used.any():
        return np.ones(len(factors), np.float32)
    middle = np.sqrt(factors[used].max() * factors[used].min())
    return np.where(used, factors / middle, 1).astype(np.float32)
