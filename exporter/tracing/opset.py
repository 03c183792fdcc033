"""Which ONNX operator set a model is traced in.

In: a model and what the user asked for. Out: a version. Imports torch.
"""

from __future__ import annotations

import torch

from compression.rounding.fake_quantise import find_oldest_opset
from runtimes.errors import UnsupportedModel


def choose_opset(model: torch.nn.Module, asked: int | None, reference: str) -> int | None:
    """Return ``asked``, or where that is None what the model needs; None leaves it to the exporter.

    Raises:
        UnsupportedModel: the model's modules cannot be said in the set that was asked for.
    """
    oldest = find_oldest_opset(model)
    if asked is None:
        return oldest or None
    if asked < oldest:
        raise UnsupportedModel(
            f"weights of 4 bits need opset {oldest}, {asked} was asked for",
            where=reference,
            cure=f"leave --opset out, or ask for {oldest} or later",
        )
    return asked
