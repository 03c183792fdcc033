"""Types and shapes of the values of a graph, where ONNX's inference can say them. Must not import a runtime."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

# Inference serialises the graph with its weights, which a protobuf message past 2 GB cannot hold.
LIMIT_BYTES = 1_900_000_000
# What they give holds tensors and is none: onnx_ir takes over the type of the tensors alone.
_HOLDING = frozenset(
    {"Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap",
     "SplitToSequence"}
)  # fmt: skip


def infer_types(model: ir.Model) -> bool:
    """Fill in what can be inferred, in place; return False, with nothing changed, where the weights are too large."""
    if not can_serialise(model):
        return False
    fill_in_types(model)
    return True


def fill_in_types(model: ir.Model, *, strict: bool = True) -> None:
    """Fill in what can be inferred, in place, whatever the size of the weights.

    The type of a value that holds tensors stays unknown where the file does not say it.

    Args:
        model: Any graph.
        strict: Whether nothing is filled in where an operator contradicts itself.
    """
    unknown = [value for node in model.graph.all_nodes() for value in node.outputs if value.type is None]
    common.ShapeInferencePass(strict_mode=strict)(model)
    for value in unknown:
        if _holds_tensors(value):
            value.type, value.shape = None, None


def can_serialise(model: ir.Model) -> bool:
    """Whether the graph and its weights fit one protobuf message."""
    values = model.graph.initializers.values()
    size_bytes: int = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    return size_bytes <= LIMIT_BYTES


def _holds_tensors(value: ir.Value) -> bool:
    """Whether a value is made by an operator that gives sequences or optionals, in a branch or a loop as well."""
    node = value.producer()
    place = value.index()
    if node is None or place is None:
        return False
    if node.op_type not in ("If", "Loop"):
        return node.op_type in _HOLDING
    # A loop gives what its body gives, but for the condition.
    first = 1 if node.op_type == "Loop" else 0
    graphs = (given.as_graph() for given in node.attributes.values() if given.type == ir.AttributeType.GRAPH)
    return any(_holds_tensors(graph.outputs[first + place]) for graph in graphs)
