"""What QuantizeLinear and DequantizeLinear make of constants, computed as ONNX says it.

In: a node of either kind. Out: its scales as they broadcast, or the floats it gives. Must not import a runtime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.passes.graph import constant


def spread(values: NDArray[np.generic], shape: tuple[int, ...], node: ir.Node) -> NDArray[np.float32] | None:
    """Return the scales or zero points of ``node`` as they broadcast against ``shape``; None where they do not fit it.

    There is one, one for each place of an axis, or one for each block of places along it.
    """
    wide = values.astype(np.float32)
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if wide.size == 1:
        return wide.reshape(())
    if block:
        fits = wide.ndim == len(shape) and wide.shape[axis] == -(-shape[axis] // block)
        return np.repeat(wide, block, axis=axis).take(range(shape[axis]), axis=axis) if fits else None
    if wide.ndim != 1 or wide.size != shape[axis]:
        return None
    return wide.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])


def is_symmetric(node: ir.Node) -> bool:
    """Whether the zero point of ``node`` is left out or a constant 0; one that is computed or fed may be anything."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    zero = constant(node.inputs[2])
    return zero is not None and not zero.any()


def dequantise(node: ir.Node) -> NDArray[np.float32] | None:
    """Return the floats that a DequantizeLinear makes of constants; None where it reads anything else."""
    arrays = [constant(value) for value in node.inputs]
    integers, scale = arrays[0], arrays[1]
    zero = arrays[2] if len(arrays) > 2 else np.zeros((), np.float32)
    if integers is None or scale is None or zero is None:
        return None
    steps, middle = spread(scale, integers.shape, node), spread(zero, integers.shape, node)
    if steps is None or middle is None:
        return None
    floats: NDArray[np.float32] = (integers.astype(np.float32) - middle) * steps
    return floats
