"""Whether a finished graph gives the same integers on every CPU, read from the graph itself.

A CPU without VNNI adds two uint8 x int8 products in 16 bits: 255 * 64 * 2 still fits, 255 * 65 * 2 does not. So a graph
is exact anywhere when no int8 weight of an integer product exceeds 64 in magnitude. Must not import a runtime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

LARGEST = 64
# What multiplies integers, or lets ONNX Runtime fuse a product into integers.
_PRODUCTS = {"DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger"}
_PRODUCTS |= {"QLinearMatMul", "QLinearConv", "QGemm"}


def is_exact_anywhere(path: Path) -> bool:
    """Return whether no product of the graph can saturate on a CPU without VNNI."""
    model = ir.load(path)
    return not any(_may_saturate(value) for value in model.graph.initializers.values())


def _may_saturate(value: ir.Value) -> bool:
    if value.dtype != ir.DataType.INT8 or value.const_value is None or len(value.const_value.shape) < 2:
        return False
    if not any(use.node.op_type in _PRODUCTS for use in value.uses()):
        return False
    return int(np.abs(value.const_value.numpy().astype(np.int16)).max(initial=0)) > LARGEST
