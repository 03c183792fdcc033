"""What the weights of linears take in a finished model, counted in its file.

In: the float graph that names the linears, and the model that was made of it. Out: bytes by linear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from calibration.linears import Linear, find_linears
from exporter.passes.packed_weights import list_packed, unpacks
from exporter.passes.sparse_linears import SUFFIX
from exporter.passes.untie_weights import open_for_lowering

# What the lowerings and the sparse pass call the node that multiplies; in float it is the linear itself.
_SUFFIXES = ("", SUFFIX, "_int8", "_w8", "_w4")
# What may stand between a weight as it is stored and the product.
_CONVERSIONS = ("Transpose", "DequantizeLinear")


def count_stored(model: Path, graph: Path) -> Mapping[str, int]:
    """Return what ``model`` stores for the weight of each linear of ``graph``: values, indices, scales, zero points.

    What linears share counts for the first of them. What something else reads too (a table that is looked up and
    multiplied with) would be there without the linear, and counts nothing. A linear that ``model`` lacks, or has joined
    with others, is left out.
    """
    nodes = {node.name: node for node in ir.load(model).graph}
    products = {
        linear: nodes[f"{linear.node}{suffix}"]
        for linear in find_linears(open_for_lowering(graph))
        for suffix in _SUFFIXES
        if f"{linear.node}{suffix}" in nodes
    }
    seen: set[ir.Value] = set()
    stored: dict[str, int] = {}
    for linear, node in products.items():
        own = {value for value in _list_constants(node, linear) if _is_read_by(value, products.values())} - seen
        seen |= own
        stored[linear.node] = sum(value.const_value.nbytes for value in own if value.const_value is not None)
    return stored


def _list_constants(node: ir.Node, linear: Linear) -> Iterator[ir.Value]:
    """Yield the initializers that ``node`` multiplies with, as they were named after the weight; the bias is none."""
    for value in node.inputs[1:]:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
            yield producer.inputs[0]
        elif producer is not None and producer.op_type == "DequantizeLinear":
            yield from (source for source in producer.inputs if source is not None)
        elif value is not None and producer is not None:
            yield from list_packed(value)
        elif value is not None and value.is_initializer() and _is_named_after(value.name or "", linear.weight):
            yield value


def _is_named_after(name: str, weight: str) -> bool:
    return name == weight or (name.startswith(f"{weight}_") and not name.startswith(f"{weight}_bias"))


def _is_read_by(value: ir.Value, products: Collection[ir.Node]) -> bool:
    """Whether nothing but ``products`` reads a value, as it is, transposed, dequantised or unpacked."""
    readers = [use.node for use in value.uses()]
    between = [node for node in readers if node.op_type in _CONVERSIONS or unpacks(node)]
    behind = all(_is_read_by(node.outputs[0], products) for node in between)
    return behind and all(node in products for node in readers if node not in between)
