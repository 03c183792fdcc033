"""A stored matrix as it was found in a model. Plain data; must not import onnx or a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Tensors of indices and masks are no weights.
_INDEX_TYPES = {"I64", "I32", "BOOL", "INT64", "INT32"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundWeight:
    """One weight of two or more axes.

    Attributes:
        name: Its own, or that of the node which reads it.
        op: The operator that reads it.
        shape: As it is stored; (outputs, inputs) where that is in blocks.
        dtype: Of one value: ``float32``, ``int8``, ``uint4``.
        nonzero: Where it is not zero: bool [outputs, inputs], for a convolution [outputs, channels, *kernel]; None
            where it is stored in a way that is not read.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    nonzero: NDArray[np.bool_] | None


def is_weight(shape: Sequence[object], dtype: str) -> bool:
    """Whether what is stored has outputs and inputs, and is no index."""
    return len(shape) >= 2 and dtype not in _INDEX_TYPES
