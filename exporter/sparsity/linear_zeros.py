"""What the zeros of each linear of a graph look like, also where its weight is stored as integers.

In: a float graph's linears, and the graph or what it was lowered to. Out: :class:`~exporter.weights.zeros.Sparsity` by
linear. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from calibration.linears import Linear
from exporter.weights.zeros import Sparsity, describe_convolution, describe_sparsity

# What may stand between a stored weight and the linear that reads it. Integers are symmetric: zero is zero.
_CONVERSIONS = ("DequantizeLinear", "Cast")


def survey_linears(model: ir.Model, linears: Sequence[Linear]) -> Mapping[str, Sparsity]:
    """Describe the stored weight of each linear, by the name of its node; one that ``model`` lacks is left out.

    Args:
        model: The graph the linears were found in, or a lowering of it that kept their nodes' names and layouts.
        linears: Of the float graph.
    """
    nodes = {node.name: node for node in model.graph}
    stored = {linear: find_stored(nodes[linear.node].inputs[1]) for linear in linears if linear.node in nodes}
    return {linear.node: _describe(linear, tensor) for linear, tensor in stored.items() if tensor is not None}


def find_stored(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the constant behind a value, through what only converts it."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in _CONVERSIONS:
            return None
        value = producer.inputs[0]
    return value.const_value if value is not None else None


def _describe(linear: Linear, stored: ir.TensorProtocol) -> Sparsity:
    nonzero = np.asarray(stored.numpy() != 0)
    if linear.kind == "Conv":
        return describe_convolution(nonzero)
    return describe_sparsity(nonzero if linear.transposed else nonzero.T)
