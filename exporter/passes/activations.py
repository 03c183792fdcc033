"""Which activation function follows a value, whatever nodes it was written in.

In: a value. Out: the value behind the activation, and its name. Exporters write GELU as one node or as up to nine, in
several orders: the nodes are computed on a few points and compared with the functions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from runtimes.sparse.reference import Activation, activate

_Points = NDArray[np.float64]

# Close enough to tell the two forms of GELU apart: they differ by up to 5e-4, and constants stored as float32 by less
# than 1e-6. Far enough out to see that a function goes on as it must: ReLU6 is written without a node of its own.
_FAR = (8.0, 30.0, 300.0, 3000.0)
_POINTS: _Points = np.array([*np.negative(_FAR), *np.linspace(-6.0, 6.0, 49), *_FAR])
_CLOSE = 1e-5
# The longest spelling of GELU known has nine nodes.
_MOST_NODES = 12

_BINARY: Mapping[str, Callable[[_Points, _Points], Any]] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "Pow": np.power,
    "Sub": np.subtract,
}


def find_activation(value: ir.Value) -> tuple[ir.Value, Activation]:
    """Return the value behind the activation on ``value``, and which it is; ``value`` itself and ``none`` without one.

    Nothing else may read ``value`` or what lies between: the nodes are about to be replaced.
    """
    known: dict[ir.Value, _Points] = {value: _POINTS}
    nodes: list[ir.Node] = []
    rank = len(value.shape) if value.shape is not None else 1
    waiting = _list_readers(value)
    while waiting and len(nodes) < _MOST_NODES:
        node = waiting.pop(0)
        computed = _compute(node, known, rank) if node not in nodes else None
        if computed is None:
            continue
        nodes.append(node)
        known[node.outputs[0]] = computed
        found = _recognise(computed)
        if found is not None and _is_read_within(known, nodes):
            return node.outputs[0], found
        waiting += _list_readers(node.outputs[0])
    return value, "none"


def _list_readers(value: ir.Value) -> list[ir.Node]:
    """Return the readers in the graph of the value: what a branch of an If computes, nothing outside it can give."""
    producer = value.producer()
    return [use.node for use in value.uses() if producer is not None and use.node.graph is producer.graph]


def _compute(node: ir.Node, known: Mapping[ir.Value, _Points], rank: int) -> _Points | None:
    """Return what a node gives on the points; None where it is no function of the value alone, or not yet."""
    inputs = [_read(value, known, rank) for value in node.inputs]
    given = [array for array in inputs if array is not None]
    if len(given) != len(inputs):
        return None
    with np.errstate(all="ignore"):
        if len(given) == 2 and node.domain == "" and node.op_type in _BINARY:
            return np.asarray(_BINARY[node.op_type](*given))
        return _compute_unary(node, given[0]) if len(given) == 1 else None


def _compute_unary(node: ir.Node, x: _Points) -> _Points | None:
    match node.domain, node.op_type:
        case "", "Relu":
            return activate(x, "relu")
        case "", "Gelu":
            return activate(x, "gelu_tanh" if node.attributes.get_string("approximate", "none") == "tanh" else "gelu")
        case "com.microsoft", "Gelu":
            return activate(x, "gelu")
        case "com.microsoft", "FastGelu":
            return activate(x, "gelu_tanh")
        case "", "Erf":
            # GELU is x / 2 * (1 + erf(x / sqrt(2))); so is erf to be had from it, but for 0.
            scaled = x * np.sqrt(2.0)
            return np.where(x == 0, 0.0, 2.0 * activate(scaled, "gelu") / np.where(x == 0, 1.0, scaled) - 1.0)
        case "", "Tanh":
            return np.tanh(x)
        case "", "Sigmoid":
            return 1.0 / (1.0 + np.exp(-x))
        case "", "Swish":
            return x / (1.0 + np.exp(-node.attributes.get_float("alpha", 1.0) * x))
        case _:
            return None


def _read(value: ir.Value | None, known: Mapping[ir.Value, _Points], rank: int) -> _Points | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    # Small constants may still be nodes.
    tensor = ir.convenience.get_const_tensor(value) if not value.is_graph_input() else None
    # One number with more axes than the value would give the answer its axes.
    if tensor is None or tensor.size != 1 or len(tensor.shape) > rank:
        return None
    return np.full_like(_POINTS, tensor.numpy().reshape(-1)[0])


def _recognise(computed: _Points) -> Activation | None:
    functions: tuple[Activation, ...] = ("relu", "gelu", "gelu_tanh", "silu")
    return next((name for name in functions if np.allclose(computed, activate(_POINTS, name), 0, _CLOSE)), None)


def _is_read_within(known: Mapping[ir.Value, _Points], nodes: Sequence[ir.Node]) -> bool:
    """Whether nobody but ``nodes`` reads the known values, the last of them aside."""
    inner = [value for value in known if value is not nodes[-1].outputs[0]]
    return all(not value.is_graph_output() and all(use.node in nodes for use in value.uses()) for value in inner)
