"""Integers for floats: exactly what ONNX QuantizeLinear and DequantizeLinear compute. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerGrid:
    """The integers a value may take: ``low`` to ``high``, stored as ``dtype`` (``int8`` or ``uint8``)."""

    low: int
    high: int
    dtype: str


def make_grid(bits: int, *, symmetric: bool, reduce_range: bool = False) -> IntegerGrid:
    """Return the grid of ``bits`` (2 to 8).

    Symmetric grids are signed and leave out the most negative integer, so that -x and x have the same error and
    TensorRT agrees. ``reduce_range`` takes one bit off, which keeps sums of two products within 16 bits on CPUs without
    VNNI.

    Raises:
        ValueError: no such grid.
    """
    used = bits - reduce_range
    if not 2 <= used <= 8:
        raise ValueError(f"{bits} bits")
    if symmetric:
        high = 2 ** (used - 1) - 1
        return IntegerGrid(low=-high, high=high, dtype="int8")
    return IntegerGrid(low=0, high=2**used - 1, dtype="uint8")


def quantise(
    values: FloatArray, scale: FloatArray | float, zero_point: int, grid: IntegerGrid
) -> NDArray[np.int8] | NDArray[np.uint8]:
    """Return the integers of ``values``: round half to even, then saturate (ONNX QuantizeLinear).

    ``scale`` broadcasts against ``values``; both are float32, as is the division.
    """
    integers = np.rint(values / np.asarray(scale, np.float32)) + np.float32(zero_point)
    return np.clip(integers, grid.low, grid.high).astype(grid.dtype)


def fake_quantise(values: FloatArray, scale: FloatArray | float, zero_point: int, grid: IntegerGrid) -> FloatArray:
    """Return ``values`` after quantising and back, in float32."""
    step = np.asarray(scale, np.float32)
    integers = values / step
    np.rint(integers, out=integers)
    np.clip(integers, grid.low - zero_point, grid.high - zero_point, out=integers)
    integers *= step
    return integers


def quantise_weight(
    weight: FloatArray,
    axis: int,
    bits: int = 8,
    *,
    symmetric: bool = True,
    reduce_range: bool = False,
    clip: bool = False,
) -> tuple[NDArray[np.int8] | NDArray[np.uint8], FloatArray, NDArray[np.int8] | NDArray[np.uint8]]:
    """Quantise a weight channel by channel.

    Args:
        weight: float32 of any rank.
        axis: The output channel's axis.
        bits: 2 to 8.
        symmetric: int8 around zero, else uint8 with zero points.
        reduce_range: One bit less.
        clip: Choose every channel's range by the smallest squared error in place of its extremes.

    Returns:
        (integers shaped as ``weight``, scale ``[channels]``, zero point ``[channels]`` in the integers' dtype). The
        scale of an all-zero channel is 1.
    """
    grid = make_grid(bits, symmetric=symmetric, reduce_range=reduce_range)
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    scale, zero_point = fit_grid(low, high, grid)
    if clip:
        scale, zero_point = _clip_rows(rows, low, high, grid)
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = scale.reshape(shape)
    integers = np.rint(weight / steps) + zero_point.astype(np.float32).reshape(shape)
    quantised = np.clip(integers, grid.low, grid.high).astype(grid.dtype)
    return quantised, scale, zero_point


def fit_grid(
    low: FloatArray, high: FloatArray, grid: IntegerGrid
) -> tuple[FloatArray, NDArray[np.int8] | NDArray[np.uint8]]:
    """Return (scale, zero point) that map [low, high], which must hold 0, onto ``grid``."""
    if grid.low < 0:
        scale = np.maximum(np.abs(low), np.abs(high)).astype(np.float32) / np.float32(grid.high)
        return _nonzero(scale), np.zeros(scale.shape, grid.dtype)
    scale = _nonzero((high - low).astype(np.float32) / np.float32(grid.high - grid.low))
    return scale, np.clip(np.rint(grid.low - low / scale), grid.low, grid.high).astype(grid.dtype)


def _nonzero(scale: FloatArray) -> FloatArray:
    """Replace scales that are zero, or too small to divide by, by 1."""
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale).astype(np.float32)


def _clip_rows(
    rows: FloatArray, low: FloatArray, high: FloatArray, grid: IntegerGrid
) -> tuple[FloatArray, NDArray[np.int8] | NDArray[np.uint8]]:
    """Return the (scale, zero point) of every row with the least squared error over a line of clipping ratios."""
    best_scale, best_zero = fit_grid(low, high, grid)
    best_error = np.full(len(rows), np.inf)
    for ratio in np.linspace(1.0, 0.6, 21, dtype=np.float32):
        scale, zero = fit_grid(low * ratio, high * ratio, grid)
        offset = zero.astype(np.float32)[:, None]
        steps = np.clip(np.rint(rows / scale[:, None]) + offset, grid.low, grid.high) - offset
        error = np.square(steps * scale[:, None] - rows).sum(axis=1, dtype=np.float64)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_zero = np.where(better, zero, best_zero)
    return best_scale, best_zero
