"""The questions all rules ask about QuantizeLinear and DequantizeLinear. Must not import a runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.passes.graph import constant

#: Operators with weights, the index of the weight, and which of its axes counts the outputs (MatMul: the last).
WEIGHTED = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
#: Move numbers about without changing them: an integer passes through.
MOVES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Split", "Concat", "Identity",
     "Gather", "DepthToSpace", "SpaceToDepth", "MaxPool"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiser:
    """A QuantizeLinear or DequantizeLinear with its constants; None where they are computed or absent."""

    node: ir.Node
    scale: NDArray[np.generic] | None
    zero: NDArray[np.generic] | None

    @property
    def name(self) -> str:
        """The node's name, or that of what it gives."""
        return name_of(self.node)

    @property
    def per_channel(self) -> bool:
        """Whether it has several scales."""
        return self.scale is not None and self.scale.size > 1


def name_of(node: ir.Node) -> str:
    """Return a node's name, or what it is and gives where it has none."""
    return node.name or f"{node.op_type} of {node.outputs[0].name}"


def list_quantisers(model: ir.Model) -> Iterator[Quantiser]:
    """Yield every QuantizeLinear and DequantizeLinear of the main graph."""
    for node in model.graph:
        found = as_quantiser(node)
        if found is not None:
            yield found


def as_quantiser(node: ir.Node | None) -> Quantiser | None:
    """Return the node as a quantiser, if it is one."""
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    return Quantiser(node=node, scale=constant(node.inputs[1]), zero=constant(zero))


def find_root(value: ir.Value | None) -> ir.Value | None:
    """Follow a value back through moves and quantisers to what it is made from."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in MOVES | {"QuantizeLinear", "DequantizeLinear", "Cast"}:
            break
        value = node.inputs[0]
    return value


def is_weight(node: ir.Node) -> bool:
    """Whether what the quantiser reads is rooted in a constant."""
    return constant(find_root(node.inputs[0])) is not None


def list_readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield (node, input index) of everything that reads ``value``, through moves."""
    for use in value.uses():
        if use.node.op_type in MOVES and use.idx == 0:
            for output in use.node.outputs:
                yield from list_readers(output)
        else:
            yield use.node, use.idx


def find_output_axis(node: ir.Node, index: int, rank: int) -> int | None:
    """Return the axis of input ``index`` that counts the outputs, or None where it is no weight's place."""
    if index != 1:
        return None
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else 1
        case "MatMul":
            return rank - 1
        case _:
            return None


def read_axis(node: ir.Node, rank: int) -> int:
    """Return the quantiser's axis, counted from the front; ONNX says 1 where none is written."""
    axis = node.attributes.get_int("axis", 1)
    return axis + rank if axis < 0 else axis


def spread(scale: NDArray[np.generic], axis: int, rank: int) -> NDArray[np.float32]:
    """Return the scales shaped to multiply a tensor of ``rank``."""
    values = scale.astype(np.float32)
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)
