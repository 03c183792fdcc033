"""Scales are constant, finite and positive, one for each zero point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from exporter.lint.pairs import Quantiser, list_quantisers
from exporter.lint.rule import Note

_CURE = "calibrate again; a tensor that was zero throughout takes the scale 1"


def check(model: ir.Model) -> Iterator[Note]:
    """Yield scales that no integer can be divided by."""
    for quantiser in list_quantisers(model):
        what = _object(quantiser)
        if what is not None:
            yield Note(node=quantiser.name, what=what, cure=_CURE)


def _object(quantiser: Quantiser) -> str | None:
    if quantiser.scale is None:
        return "its scale is computed; TensorRT takes constants only"
    values = quantiser.scale.astype(np.float64).reshape(-1)
    bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
    if bad.size:
        which = f" of channel {bad[0]}" if values.size > 1 else ""
        return f"its scale{which} is {values[bad[0]]:g}"
    if quantiser.zero is not None and quantiser.zero.size != values.size:
        return f"it has {values.size} scales and {quantiser.zero.size} zero points"
    return None
