"""Types and shapes of the values of a graph, where ONNX's inference can say them. Must not import a runtime."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

# Inference serialises the graph with its weights, which a protobuf message past 2 GB cannot hold.
LIMIT_BYTES = 1_900_000_000


def infer_types(model: ir.Model) -> bool:
    """Fill in what can be inferred, in place; return False, with nothing changed, where the weights are too large."""
    if not can_serialise(model):
        return False
    common.ShapeInferencePass()(model)
    return True


def can_serialise(model: ir.Model) -> bool:
    """Whether the graph and its weights fit one protobuf message."""
    values = model.graph.initializers.values()
    size_bytes: int = sum(value.const_value.nbytes for value in values if value.const_value is not None)
    return size_bytes <= LIMIT_BYTES
