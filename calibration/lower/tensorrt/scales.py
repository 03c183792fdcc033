"""Scales as the type that holds them stores them. numpy only."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.quantise import FloatArray


def round_up(scale: FloatArray | float, kind: ir.DataType) -> FloatArray:
    """Return the smallest numbers of ``kind`` that are not below ``scale``, as float32.

    Upwards, so that the largest value of a tensor is not clipped, and a scale below the smallest FP16 number does not
    become zero. Integers must be computed with what this returns: FP16 keeps 11 bits of a scale, which at 127 steps is
    a sixteenth of a step. A scale past the largest number of ``kind`` is returned as it is: see ``overflow``.
    """
    exact = np.asarray(scale, np.float32)
    if kind == ir.DataType.FLOAT:
        return exact
    with np.errstate(over="ignore"):
        stored = exact.astype(kind.numpy())
    below = stored.astype(np.float32) < exact
    # The next number of a positive float is the next integer of its bits.
    bits: NDArray[np.uint16] = stored.view(np.uint16) + below.astype(np.uint16)
    rounded = bits.view(kind.numpy()).astype(np.float32)
    return np.where(np.isfinite(rounded), rounded, exact)
