"""Factors that move what is hard to round from activations into weights, where each token has a scale of its own.

After Xiao et al., "SmoothQuant", ICML 2023 (arXiv:2211.10438), equation 4; its exponent is searched for each input by
what int8 really changes at the outputs, on tokens that were kept. In: the matrices that read one input, and its
statistic. Out: the factors. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.quantise import quantise_weight
from calibration.weights.blocks import FloatArray
from calibration.weights.inputs import InputStatistic

# Exponents tried, the paper's 0.5 among them; 1 leaves no range to the activations.
_ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# Rows of each matrix that the search looks at, evenly spaced.
_SEARCHED_ROWS = 256
_LEVELS = 127
# A channel that is never used, or never read, takes part in no ratio.
_SMALLEST = 1e-5


def find_smoothing(weights: Sequence[FloatArray], statistic: InputStatistic, sources: NDArray[np.int64]) -> FloatArray:
    """Return what to divide each input by, float32 [K], 1 throughout where nothing is gained.

    Args:
        weights: float32 [rows, K] of all that read the input; each row gets a scale.
        statistic: Of the input.
        sources: int64 [K], the channel that each input comes from: inputs of one channel get one factor.
    """
    sampled = [sample_rows(rows) for rows in weights]
    peaks = _find_largest(statistic.peak, sources)
    heights = _find_largest(np.max([np.abs(rows).max(axis=0) for rows in weights], axis=0), sources)
    best = np.ones_like(statistic.peak)
    least = measure_rounding(sampled, statistic.tokens, best)
    for alpha in _ALPHAS:
        factors = peaks**alpha / heights ** (1 - alpha)
        scales = (factors / np.exp(np.log(factors).mean()))[sources].astype(np.float32)
        error = measure_rounding(sampled, statistic.tokens, scales)
        if error < least:
            best, least = scales, error
    return best


def sample_rows(rows: FloatArray) -> FloatArray:
    """Return at most some five hundred of the rows of a matrix, evenly spaced."""
    return rows[:: max(1, len(rows) // _SEARCHED_ROWS)]


def measure_rounding(weights: Sequence[FloatArray], tokens: FloatArray, scales: FloatArray) -> float:
    """Return the mean square of what rounding both sides to int8 changes at the outputs, as a share of each token's.

    Args:
        weights: float32 [rows, K] each; every row gets a scale.
        tokens: float32 [tokens, K]; every token gets a scale.
        scales: float32 [K], what tokens are divided by and weights multiplied with before both are rounded.

    The first token of a text is a hundred times as large as others: in a plain sum it alone would count.
    """
    divided = tokens / scales
    steps = np.abs(divided).max(axis=1, keepdims=True) / _LEVELS
    steps[steps == 0] = 1
    rounded = np.rint(divided / steps) * steps
    lost, whole = np.zeros(len(tokens)), np.full(len(tokens), _SMALLEST)
    for rows in weights:
        values, step, _ = quantise_weight(rows * scales, axis=0)
        wanted = tokens @ rows.T
        lost += np.square(rounded @ (values * step[:, None]).T - wanted).sum(axis=1)
        whole += np.square(wanted).sum(axis=1)
    return float((lost / whole).mean())


def _find_largest(values: FloatArray, sources: NDArray[np.int64]) -> NDArray[np.float64]:
    largest = np.full(sources.max() + 1, _SMALLEST)
    np.maximum.at(largest, sources, values)
    return largest
