"""Scales are constant, finite and positive, one for each zero point."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from exporter.lint.pairs import Quantiser, find_fault, list_quantisers
from exporter.lint.rule import Note

_CURE = "calibrate again; a tensor that was zero throughout takes the scale 1"


def check(model: ir.Model) -> Iterator[Note]:
    """Yield scales that no integer can be divided by."""
    for quantiser in list_quantisers(model):
        what = _object(quantiser)
        if what is not None:
            yield Note(node=quantiser.name, what=what, cure=_CURE)


def _object(quantiser: Quantiser) -> str | None:
    scale, node = quantiser.scale, quantiser.node
    if scale is None:
        return "its scale is computed; TensorRT takes constants only"
    bad = find_fault(scale)
    if bad is not None:
        which = f" of channel {bad}" if scale.size > 1 else ""
        return f"its scale{which} is {float(scale.reshape(-1)[bad]):g}"
    if quantiser.zero is not None and quantiser.zero.size != scale.size:
        return f"it has {scale.size} scales and {quantiser.zero.size} zero points"
    if quantiser.zero is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        return "its zero point is computed; TensorRT takes zeros only"
    return None
