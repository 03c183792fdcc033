"""Bias correction: take back the shift that rounding gives a linear layer's output on average.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, arXiv
1906.04721), section 4.2, with measured means in place of those of a batch norm. numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.quantise import FloatArray


def find_bias_delta(
    mean: NDArray[np.float64],
    rows: FloatArray,
    quantised_rows: FloatArray,
    weight: FloatArray,
    quantised_weight: FloatArray,
) -> FloatArray:
    """Return what to add to the output so that its mean is the float layer's.

    The shift is E[x^ W^ - x W] = E[x] (W^ - W) + E[x^ - x] W^: the first part from the exact channel means, the second,
    whose spread is that of a rounding error, from the sampled rows.

    Args:
        mean: ``[K]``, exact means of the activation.
        rows: ``[rows, K]``, sampled activations.
        quantised_rows: ``[rows, K]``, the same after quantising and back, in the units of ``rows``.
        weight: ``[K, N]``.
        quantised_weight: ``[K, N]``, after quantising and back, in the units of ``weight``.

    Returns:
        float32 ``[N]``.
    """
    weight_part = mean @ (quantised_weight.astype(np.float64) - weight)
    rounding = (quantised_rows.astype(np.float64) - rows).mean(axis=0) if len(rows) else np.zeros(len(mean))
    return np.asarray(-(weight_part + rounding @ quantised_weight), np.float32)
