"""QuantizeLinear says the type of its integers once: by its zero point, or by its attribute where it has none."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from exporter.lint.pairs import Quantiser, list_quantisers
from exporter.lint.rule import Note


def check(model: ir.Model) -> Iterator[Note]:
    """Yield QuantizeLinear whose attribute contradicts its zero point."""
    for quantiser, written, kind in _find(model):
        yield Note(
            node=quantiser.name,
            what=f"its output_dtype is {written.name} and its zero point {kind.name}",
            cure="leave output_dtype out: the zero point says the type",
        )


def drop_attribute(model: ir.Model) -> int:
    """Leave the type to the zero point; return how often."""
    found = list(_find(model))
    for quantiser, _, _ in found:
        del quantiser.node.attributes["output_dtype"]
    return len(found)


def _find(model: ir.Model) -> Iterator[tuple[Quantiser, ir.DataType, ir.DataType]]:
    for quantiser in list_quantisers(model):
        node = quantiser.node
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        written = node.attributes.get_int("output_dtype", 0)
        if node.op_type != "QuantizeLinear" or not written or zero is None or zero.dtype is None:
            continue
        if zero.dtype != ir.DataType(written):
            yield quantiser, ir.DataType(written), zero.dtype
