"""MatMulNBits packs 4- or 8-bit weights in blocks of its own: an operator of ONNX Runtime, and of nobody else.

TensorRT takes weights as int8 with a scale for each output, whose steps are finer than those of 4 bits in a block.
Layout: contrib_ops/cpu/quantization/matmul_nbits of ONNX Runtime, ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.lint.pairs import name_of
from exporter.lint.requantise import quantise_weight
from exporter.lint.rule import Note
from exporter.passes.graph import constant


def check(model: ir.Model) -> Iterator[Note]:
    """Yield MatMulNBits."""
    for node in model.graph.all_nodes():
        if is_packed(node):
            yield Note(
                node=name_of(node),
                what="its weight is packed in a way only ONNX Runtime reads",
                cure="quantise to int8, or to symmetric int4 in Q/DQ form (ONNX Runtime: is_symmetric=True, "
                "quant_format=QuantFormat.QDQ)",
            )


def store_int8(model: ir.Model) -> int:
    """Store each such weight as int8 before a plain MatMul, where it is constant; return how many."""
    changed = sum(_rewrite(model.graph, node) for node in list(model.graph.all_nodes()) if is_packed(node))
    if changed:
        remove_dead(model)
    return changed


def is_packed(node: ir.Node) -> bool:
    """Whether the node is a product with a packed weight."""
    return node.op_type == "MatMulNBits"


def _rewrite(graph: ir.Graph, node: ir.Node) -> int:
    inputs: list[ir.Value | None] = list(node.inputs)
    given, _, scale, _, order, bias = inputs + [None] * (6 - len(inputs))
    weight = _unpack(node) if order is None else None
    if weight is None or given is None or scale is None:
        return 0
    name = name_of(node)
    integers, scales = quantise_weight(weight.T, 1, scale.dtype.numpy())
    stored = add_constant(graph, f"{name}_int8", np.ascontiguousarray(integers))
    inputs = [stored, add_constant(graph, f"{name}_scale", scales)]
    dequantise = ir.node("DequantizeLinear", inputs, {"axis": 1}, name=f"{name}_dq")
    new = [dequantise, ir.node("MatMul", [given, dequantise.outputs[0]], name=f"{name}_float")]
    if bias is not None:
        new.append(ir.node("Add", [new[-1].outputs[0], bias], name=f"{name}_bias"))
    for made in new:
        made.outputs[0].type = ir.TensorType(scale.dtype)
    node.graph.insert_before(node, new)
    take_over(node.outputs[0], new[-1].outputs[0])
    node.graph.remove(node, safe=True)
    return 1


def _unpack(node: ir.Node) -> NDArray[np.float32] | None:
    """Return the weight as floats [outputs, inputs], or None where it is not constant, or of another width or size."""
    packed, scale = constant(node.inputs[1]), constant(node.inputs[2])
    bits, size = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
    inputs, outputs = node.attributes.get_int("K", 0), node.attributes.get_int("N", 0)
    if packed is None or scale is None or bits not in (4, 8) or min(size, inputs, outputs) < 1:
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


def _spread_bits(packed: NDArray[np.generic], bits: int) -> NDArray[np.generic]:
    """Return one number a column of uint8 [rows, bytes]: of two in a byte the low half comes first."""
    if bits == 8:
        return packed
    halves = np.stack([packed & 15, packed >> 4], axis=-1)  # type: ignore[operator]  # uint8 by the operator's schema
    return halves.reshape(len(packed), -1)
