"""Which nodes do not fit FP16, from the magnitudes that calibration saw and the constants that are there.

BF16 has the range of FP32: nothing overflows there, and nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.magnitudes import MASK_BELOW

LARGEST = 65504.0
#: Texts met later may go this much further than those calibrated on.
HEADROOM = 2.0
#: What the fillings of masks become: half of the range, so that two masks added stay finite: a row of nothing but -inf
#: is NaN after a softmax.
MASKED = -LARGEST / 2


def find_overflow(model: ir.Model, magnitudes: Mapping[str, float]) -> dict[ir.Node, str]:
    """Return the nodes that must stay in FP32, each with the reason.

    Args:
        model: The graph, quantised or not.
        magnitudes: Largest magnitude of a tensor by name, over the calibration data and all positions.
    """
    found: dict[ir.Node, str] = {}
    for node in model.graph:
        why = _object(node, magnitudes)
        if why is not None:
            found[node] = why
    return found


def fit_constant(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``array`` with the fillings of masks brought into FP16's range."""
    return np.where((array <= MASK_BELOW) & np.isfinite(array), np.float32(MASKED), array)


def _object(node: ir.Node, magnitudes: Mapping[str, float]) -> str | None:
    for value in (*node.inputs, *node.outputs):
        if value is None or value.dtype != ir.DataType.FLOAT:
            continue
        if value.const_value is not None and not value.is_graph_input():
            why = _object_to_constant(value.const_value.numpy())
            if why is not None:
                return f"its constant {value.name} {why}"
            continue
        seen = magnitudes.get(value.name or "", 0.0)
        if not seen * HEADROOM <= LARGEST:  # NaN, where calibration met one, fits nothing
            return f"{value.name} reached {seen:.3g} in calibration; FP16 ends at {LARGEST:.0f}"
    return None


def _object_to_constant(array: NDArray[np.float32]) -> str | None:
    kept = fit_constant(array)
    finite = kept[np.isfinite(kept)]
    if finite.size and float(np.abs(finite).max()) > LARGEST:
        return f"holds {float(np.abs(finite).max()):.3g}, past the end of FP16"
    # A denominator's epsilon that becomes zero is a division by zero. Weights may lose their smallest values.
    if kept.size == 1 and kept.any() and not kept.astype(np.float16).any():
        return f"is {float(array.reshape(-1)[0]):.3g}, which FP16 cannot tell from zero"
    return None
