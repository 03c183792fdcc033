"""Weights of 2, 4 or 8 bits that ONNX Runtime packs in blocks along the inputs: MatMulNBits.

In: a node. Out: its weight as floats. Must not import a runtime.
Layout: contrib_ops/cpu/quantization/matmul_nbits of ONNX Runtime, ContribOperators.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.passes.graph import constant


def is_packed(node: ir.Node) -> bool:
    """Whether the node is a product with a packed weight."""
    return node.op_type == "MatMulNBits"


def unpack_weight(node: ir.Node) -> NDArray[np.float32] | None:
    """Return the weight as floats [outputs, inputs].

    None where it is not constant, not as the attributes say, packed once more for one CPU, or where its inputs are in
    another order (``g_idx``).
    """
    if len(node.inputs) < 3 or (len(node.inputs) > 4 and node.inputs[4] is not None):
        return None
    packed, scale = constant(node.inputs[1]), constant(node.inputs[2])
    bits, size = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
    inputs, outputs = node.attributes.get_int("K", 0), node.attributes.get_int("N", 0)
    if packed is None or scale is None or bits not in (2, 4, 8) or min(size, inputs, outputs) < 1:
        return None
    if packed.dtype != np.uint8 or node.attributes.get_int("weight_prepacked", 0) != 0:
        return None
    blocks = -(-inputs // size)
    if packed.size * 8 != outputs * blocks * size * bits or scale.size != outputs * blocks:
        return None  # not as its attributes say
    zero = _read_zero(node, bits, outputs, blocks)
    if zero is None:
        return None
    steps = _spread_bits(packed.reshape(outputs, -1), bits).reshape(outputs, blocks, size).astype(np.float32)
    floats = (steps - zero[:, :, None]) * scale.astype(np.float32).reshape(outputs, blocks, 1)
    weight: NDArray[np.float32] = floats.reshape(outputs, -1)[:, :inputs]
    return weight


def count_hidden(node: ir.Node) -> int:
    """Return how many values a packed weight has beyond the bytes it is stored in; 0 where the node has none."""
    stored = constant(node.inputs[1]) if is_packed(node) and len(node.inputs) > 1 else None
    values = node.attributes.get_int("N", 0) * node.attributes.get_int("K", 0)
    return values - stored.size if stored is not None and values > 0 else 0


def _read_zero(node: ir.Node, bits: int, outputs: int, blocks: int) -> NDArray[np.float32] | None:
    """Return the zero points [outputs, blocks]: packed as the weights, in float, or the middle where there are none."""
    value = node.inputs[3] if len(node.inputs) > 3 else None
    if value is None:
        return np.full((outputs, blocks), 1 << (bits - 1), np.float32)
    stored = constant(value)
    if stored is None:
        return None
    if stored.size != (outputs * blocks if stored.dtype != np.uint8 else outputs * -(-blocks * bits // 8)):
        return None
    if stored.dtype != np.uint8:
        return stored.astype(np.float32).reshape(outputs, blocks)
    return _spread_bits(stored.reshape(outputs, -1), bits)[:, :blocks].astype(np.float32)


def _spread_bits(packed: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return one number a column of uint8 [rows, bytes]: of those in a byte the lowest bits come first."""
    parts = [packed >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(len(packed), -1)
