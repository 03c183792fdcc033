"""Puts a model's weights beside its graph, where ONNX Runtime maps them into memory instead of reading them.

In: an ONNX file. Out: the same model as two files, the same bytes each time. Must not import a runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from runtimes.onnx_file import read_header

# Below this a file of its own gains nothing.
_SMALL_BYTES = 1 << 20
# Smaller ones are shapes and scales, which ONNX Runtime folds when it opens the model and so wants at hand.
_SMALLEST_WEIGHT_BYTES = 1 << 10


def split_weights(model: Path, folder: Path) -> Path:
    """Return the model with its weights in a file beside it: itself, where that is so or it is small.

    Args:
        model: An ONNX file.
        folder: Where ``model.onnx`` and ``model.onnx.data`` go, unless they are there already.
    """
    if model.stat().st_size < _SMALL_BYTES or read_header(model).external:
        return model
    target = folder / "model.onnx"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        ir.save(
            ir.load(model), target, external_data=f"{target.name}.data", size_threshold_bytes=_SMALLEST_WEIGHT_BYTES
        )
    return target
