"""Scales are constant, finite and positive, one for each zero point."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from exporter.lint.pairs import Quantiser, find_fault, list_quantisers
from exporter.lint.rule import Note

_CURE = "calibrate again; a tensor that was zero throughout takes the scale 1"
_CURE_COMPUTED = "quantise the float model with calibration data, which makes scales constants"


def check(model: ir.Model) -> Iterator[Note]:
    """Yield scales that no integer can be divided by."""
    for quantiser in list_quantisers(model):
        computed, what = _find_computed(quantiser), _object(quantiser)
        if computed is not None:
            yield Note(node=quantiser.name, what=f"its {computed}", cure=_CURE_COMPUTED)
        elif what is not None:
            yield Note(node=quantiser.name, what=what, cure=_CURE)


def _find_computed(quantiser: Quantiser) -> str | None:
    node = quantiser.node
    if quantiser.scale is None:
        return "scale is computed; TensorRT takes constants only"
    if quantiser.zero is None and len(node.inputs) > 2 and node.inputs[2] is not None:
        return "zero point is computed; TensorRT takes zeros only"
    return None


def _object(quantiser: Quantiser) -> str | None:
    scale = quantiser.scale
    if scale is None:
        return None
    bad = find_fault(scale)
    if bad is not None:
        which = f" of channel {bad}" if scale.size > 1 else ""
        return f"its scale{which} is {float(scale.reshape(-1)[bad]):g}"
    if quantiser.zero is not None and quantiser.zero.size != scale.size:
        return f"it has {scale.size} scales and {quantiser.zero.size} zero points"
    return None
