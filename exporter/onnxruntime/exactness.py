"""On which CPUs a finished graph gives the same integers, read from the graph itself.

A CPU without VNNI adds two uint8 x int8 products in 16 bits: 255 * 64 * 2 still fits, 255 * 65 * 2 does not. So a graph
is exact anywhere when no int8 weight of an integer product exceeds 64 in magnitude. Must not import a runtime.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.weights.plan import INT8_ARITHMETIC
from exporter.passes.packed_weights import read_packed

LARGEST = 64
# What multiplies integers, or lets ONNX Runtime fuse a product into integers.
_PRODUCTS = {"DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger"}
_PRODUCTS |= {"QLinearMatMul", "QLinearConv", "QGemm"}


def is_exact_anywhere(path: Path) -> bool:
    """Return whether no product of the graph can saturate on a CPU without VNNI."""
    graph = ir.load(path).graph
    stored = any(_may_saturate(value) for one in (graph, *graph.subgraphs()) for value in one.initializers.values())
    return not stored and not any(_multiplies_large(node) for node in graph.all_nodes())


def rounds_where_it_can(path: Path) -> bool:
    """Return whether a product of the graph rounds its activations to int8 on some CPUs and leaves them on others.

    So do blocks of weights: see :func:`calibration.weights.plan.choose_accuracy`.
    """
    return any(_rounds_blocks(node) for node in ir.load(path).graph.all_nodes())


def _rounds_blocks(node: ir.Node) -> bool:
    return node.op_type == "MatMulNBits" and node.attributes.get_int("accuracy_level", 0) == INT8_ARITHMETIC


def _multiplies_large(node: ir.Node) -> bool:
    """Whether a weight that is unpacked to int8 when the model is loaded is too large."""
    packed = read_packed(node, 1) if node.op_type in _PRODUCTS and len(node.inputs) > 1 else None
    return packed is not None and packed[0].dtype == np.int8 and _peak(packed[0]) > LARGEST


def _may_saturate(value: ir.Value) -> bool:
    if value.dtype != ir.DataType.INT8 or value.const_value is None or len(value.const_value.shape) < 2:
        return False
    if not any(use.node.op_type in _PRODUCTS for use in value.uses()):
        return False
    return _peak(value.const_value.numpy()) > LARGEST


def _peak(integers: NDArray[np.generic]) -> int:
    return int(np.abs(integers.astype(np.int16)).max(initial=0))
