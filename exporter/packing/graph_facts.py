"""What a finished ONNX graph computes in: 16-bit floats, and integers.

In: an ONNX file. Out: :class:`GraphFacts`; no weight is read. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_INTEGER_OPS = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "ConvInteger"}
    | {"QLinearMatMul", "QLinearConv", "QGemm", "SparseLinearInt8", "MatMulNBits"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """What a graph is made of.

    Attributes:
        float16: Whether anything in it is a 16-bit float.
        rounds: Whether it rounds activations to integers, so that a value near a boundary can land on either side.
    """

    float16: bool
    rounds: bool


def read_graph_facts(model: Path) -> GraphFacts:
    """Look at every node and type of a graph."""
    graph = ir.load(model).graph
    nodes = list(graph.all_nodes())
    return GraphFacts(
        float16=any(kind in _HALVES for kind in _list_types(graph, nodes)),
        rounds=any(node.op_type in _INTEGER_OPS for node in nodes),
    )


def _list_types(graph: ir.Graph, nodes: list[ir.Node]) -> Iterator[ir.DataType | None]:
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        yield value.dtype
    for node in nodes:
        cast = node.attributes.get("to")
        if node.op_type == "Cast" and cast is not None:
            yield ir.DataType(cast.as_int())
        for value in node.outputs:
            yield value.dtype
