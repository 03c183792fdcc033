"""The few questions every pass asks of an onnx_ir graph.

In: values and nodes. Out: constants, producers, new initializers. Must not import a runtime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return the constant a value holds, or None where it is computed or fed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """Return the constant a value holds if it is one number."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that computes ``value`` if it is of one of ``op_types``."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types else None


def permutation(node: ir.Node | None) -> tuple[int, ...] | None:
    """Return the permutation of a Transpose."""
    if node is None or node.op_type != "Transpose" or "perm" not in node.attributes:
        return None
    return tuple(node.attributes["perm"].as_ints())


def only_user(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Return the one node that reads ``value``, if there is just one, of one of ``op_types``, and it is no output.

    A reader in a branch of an If is none: what is computed there, nothing outside it can give.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type not in op_types:
        return None
    producer, reader = value.producer(), uses[0].node
    return reader if producer is None or reader.graph is producer.graph else None


def opset(model: ir.Model) -> int:
    """Return the version of the default operator set."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 0))
