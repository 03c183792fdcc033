"""Weights on another grid: symmetric int8, from the floats their integers stand for. Must not import a runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporter.lint.pairs import spread


def quantise_weight(
    floats: NDArray[np.float32], axis: int | None, kind: np.dtype[np.generic]
) -> tuple[NDArray[np.int8], NDArray[np.generic]]:
    """Return int8 integers and their scales of type ``kind``: one for each index of ``axis``, or one for them all."""
    others = tuple(number for number in range(floats.ndim) if number != axis)
    largest = np.abs(floats).max(axis=others, initial=0) / np.float32(127)
    scale = largest.astype(kind)
    # Of nothing but zeros, or of less than the type can hold, any scale will do.
    scale = np.where(scale > 0, scale, 1).astype(kind)
    wide = scale.astype(np.float32)
    if axis is not None:
        wide = wide.reshape([-1 if number == axis else 1 for number in range(floats.ndim)])
    return np.clip(np.rint(floats / wide), -127, 127).astype(np.int8), scale


def join_scales(
    stored: NDArray[np.generic], scale: NDArray[np.generic], zero: NDArray[np.generic], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.generic]]:
    """Return int8 integers and one scale for a weight with a scale for each index of ``axis``."""
    steps = stored.astype(np.float32) - spread(zero, axis, stored.ndim)
    return quantise_weight(steps * spread(scale, axis, stored.ndim), None, scale.dtype)
