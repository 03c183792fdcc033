"""Integers that are moved between their quantiser and the DequantizeLinear they end in. Must not import a runtime."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from calibration.lower.edits import take_over
from exporter.lint.pairs import name_of


def list_ends(integers: ir.Value) -> Iterator[ir.Node]:
    """Yield the DequantizeLinear that integers end in, through moves at most."""
    for use in integers.uses():
        if use.node.op_type == "DequantizeLinear":
            yield use.node
        else:
            for output in use.node.outputs:
                yield from list_ends(output)


def set_type(integers: ir.Value, kind: ir.TypeProtocol | None) -> None:
    """Give a value, and what moves make of it, another type."""
    integers.type = kind
    for use in integers.uses():
        if use.node.op_type != "DequantizeLinear":
            for output in use.node.outputs:
                set_type(output, kind)


def write_identity(node: ir.Node) -> None:
    """Let a quantiser pass what it reads."""
    passed = ir.node("Identity", [node.inputs[0]], name=f"{name_of(node)}_passed")
    node.graph.insert_before(node, passed)
    take_over(node.outputs[0], passed.outputs[0])
    node.graph.remove(node, safe=True)
