"""SmoothQuant: move the spread between channels from the activation, which has one scale, to the weight, with many.

After Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models"
(ICML 2023, arXiv 2211.10438). numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.quantise import FloatArray

#: The paper uses 0.5 to 0.75 for decoders. Encoders with one scale a tensor profit from more: on MiniLM 0.9 to 1 is
#: best for most layers, 0.8 for the ones that read a layer norm before the feed-forward block.
ALPHAS = (0.5, 0.7, 0.8, 0.9, 1.0)


def find_smoothing(activation_absmax: FloatArray, weights: Sequence[FloatArray], alpha: float) -> FloatArray:
    """Return the vector s of equation 4, ``max|X|**alpha / max|W|**(1 - alpha)``, its geometric mean brought to 1.

    Args:
        activation_absmax: float32 ``[K]``, the largest magnitude of every input channel.
        weights: The weights ``[K, N]`` of all linears that read this activation.
        alpha: How much of the spread moves to the weights: 0 none, 1 all.

    Returns:
        float32 ``[K]``: the activation is divided by it, the weights multiplied. A channel that is zero in the
        activation or in every weight keeps 1.
    """
    weight_absmax = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0).astype(np.float64)
    usable = (activation_absmax > 0) & (weight_absmax > 0)
    smoothing = np.ones(len(activation_absmax), np.float64)
    smoothing[usable] = activation_absmax[usable].astype(np.float64) ** alpha / weight_absmax[usable] ** (1 - alpha)
    if usable.any():
        smoothing[usable] /= np.exp(np.log(smoothing[usable]).mean())
    return smoothing.astype(np.float32)
