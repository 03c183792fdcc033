"""Products with a constant matrix that no lowering and no sparse kernel takes, and why.

In: a float graph. Out: the matrix of each, as plain data, for the ledger. What is taken is in calibration/linears.py.
Must not import a runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.linears import find_linears


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refused:
    """A product by the name of its node.

    Attributes:
        node: The name of the node.
        weight: [outputs, inputs], as it is stored; a stack of matrices one under the other.
        why: What keeps it from being taken.
    """

    node: str
    weight: NDArray[Any]
    why: str


def list_refused(model: ir.Model) -> tuple[Refused, ...]:
    """Return the MatMul and Gemm nodes with one constant matrix that are no linears, those in subgraphs included."""
    taken = {linear.node for linear in find_linears(model)}
    products = [node for node in model.graph.all_nodes() if node.domain == "" and node.op_type in ("MatMul", "Gemm")]
    return tuple(
        found
        for node in products
        if (node.graph is not model.graph or (node.name or "") not in taken) and (found := _describe(node)) is not None
    )


def _describe(node: ir.Node) -> Refused | None:
    matrices = [(place, tensor) for place in (0, 1) if (tensor := _read_matrix(node.inputs[place])) is not None]
    if len(matrices) != 1:
        return None
    ((place, tensor),) = matrices
    stored = tensor.numpy()
    turned = node.attributes.get_int("transB" if place else "transA", 0) == 1
    # On the right, columns are outputs; on the left, rows are.
    if (place == 1) != turned:
        stored = np.swapaxes(stored, -1, -2)
    weight = stored.reshape(-1, stored.shape[-1])
    return Refused(node=node.name or node.op_type, weight=weight, why=_explain(node, place, tensor))


def _read_matrix(value: ir.Value | None) -> ir.TensorProtocol | None:
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return None
    tensor = value.const_value
    return tensor if len(tensor.shape) >= 2 and tensor.size > 0 and tensor.dtype.is_floating_point() else None


def _explain(node: ir.Node, place: int, weight: ir.TensorProtocol) -> str:
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name.lower()}, the kernels take float32"
    if place == 0:
        return "its weight is on the left"
    if len(weight.shape) > 2:
        return "its weight is a stack of matrices"
    if node.op_type == "Gemm":
        return "a Gemm with transA, a factor, or a bias that is no constant row"
    return "it is in a branch or a loop"
