"""Attention's two products in int8, for those who ask for it.

In: a float graph and what is known of its magnitudes. Out: both operands of a MatMul of two activations quantised, one
scale each. Ranges are known without statistics of their own: a softmax ends at 1, and moving data about keeps its
range. Off by default: on an encoder it costs more accuracy than all linears together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant
from calibration.lower.tensorrt.linears import insert_pair
from calibration.lower.tensorrt.scales import round_up
from calibration.quantise import make_grid

#: Give back what they get, or a part of it: the range of the first input holds for the output.
_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Split", "Slice", "Identity", "Flatten"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A MatMul of two activations and the largest magnitude of each operand."""

    node: str
    left: float
    right: float


def find_products(model: ir.Model, magnitudes: Mapping[str, float]) -> tuple[Product, ...]:
    """Return the products of two activations (attention's) whose operands have a known range, in graph order."""
    found = []
    for node in model.graph:
        if node.op_type != "MatMul" or any(value is None or value.const_value is not None for value in node.inputs):
            continue
        left, right = (_find_range(value, magnitudes) for value in node.inputs)
        if left is not None and right is not None:
            found.append(Product(node=node.name or "", left=left, right=right))
    return tuple(found)


def quantise_products(model: ir.Model, products: Sequence[Product], kind: ir.DataType) -> None:
    """Edit ``model`` in place: each product reads two int8 tensors."""
    wanted = {product.node: product for product in products}
    top = make_grid(8, symmetric=True).high
    for node in list(model.graph):
        product = wanted.get(node.name or "")
        if product is None:
            continue
        for index, largest in enumerate((product.left, product.right)):
            value = node.inputs[index]
            if value is None:
                continue
            name = f"{node.name}_{('left', 'right')[index]}"
            scale = add_constant(model.graph, f"{name}_scale", round_up(largest / top, kind))
            zero = add_constant(model.graph, f"{name}_zero", np.zeros((), np.int8))
            given = insert_pair(model.graph, value, scale, zero, node)
            _rename(given, name)
            node.replace_input_with(index, given)


def _rename(given: ir.Value, name: str) -> None:
    """Name both nodes after the operand: a product has two pairs."""
    dequantise = given.producer()
    quantise = dequantise.inputs[0].producer() if dequantise is not None and dequantise.inputs[0] is not None else None
    for node, suffix in ((quantise, "q"), (dequantise, "dq")):
        if node is not None:
            node.name = f"{name}_{suffix}"
            node.outputs[0].name = f"{name}_{suffix}_out"


def _find_range(value: ir.Value | None, magnitudes: Mapping[str, float]) -> float | None:
    """Return the largest magnitude of ``value``: what was seen, or what follows from its producers."""
    factor = 1.0
    while value is not None:
        if value.name in magnitudes:
            seen = magnitudes[value.name] * factor
            return seen if seen > 0 else None
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Softmax":
            return factor
        if node.op_type in ("Mul", "Div") and (scalar := _scalar(node.inputs[1])):
            factor *= abs(scalar) if node.op_type == "Mul" else 1 / abs(scalar)
        elif node.op_type not in _MOVES:
            return None
        value = node.inputs[0]
    return None


def _scalar(value: ir.Value | None) -> float | None:
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(-1)[0])
