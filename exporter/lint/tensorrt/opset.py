"""Operator sets that TensorRT's parser says it reads: outside of them it takes an operator by its name alone."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from exporter.lint.pairs import FIRST_AXIS, list_quantisers
from exporter.lint.rule import Note
from exporter.passes.graph import opset

#: "TensorRT 10.15 supports operators in the inclusive range of opset 9 to opset 24" (onnx-tensorrt, docs/operators.md).
OLDEST, NEWEST = 9, 24


def check(model: ir.Model) -> Iterator[Note]:
    """Yield the model's operator set where it is outside of the documented range, and quantisers it does not have."""
    found = opset(model)
    if not OLDEST <= found <= NEWEST:
        yield Note(
            node=f"opset {found}",
            what=f"TensorRT's parser reads opset {OLDEST} to {NEWEST}; operators that changed since mean what they did",
            cure=f"export the model with opset {NEWEST} or older" if found > NEWEST else "convert it to opset 13",
        )
    for quantiser in list_quantisers(model):
        if quantiser.per_channel and found < FIRST_AXIS:
            yield Note(
                node=quantiser.name,
                what=f"it has a scale a channel, which opset {found} does not know: ONNX Runtime refuses it",
                cure=f"convert the float model to opset {FIRST_AXIS}, and quantise it again",
            )
