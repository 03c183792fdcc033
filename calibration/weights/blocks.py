"""Matrices in blocks along their inputs, each with a scale and maybe a zero point, as MatMulNBits stores them.

In: rows of floats. Out: :class:`Blocks`, and their packed bytes. numpy only.

Layout: contrib_ops/cpu/quantization/matmul_nbits of ONNX Runtime, ContribOperators.md. Of the values in a byte the
first lies in the lowest bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UsageError

Bits = Literal[2, 4, 8]
FloatArray = NDArray[np.float32]
LevelArray = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)

SIZES = (16, 32, 64, 128)
# Of the peak: what a block gains where its largest weight is cut off, it loses there. Rarely is less than 0.7 best.
_SHARES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat:
    """How a matrix is stored: ``bits`` a value, ``size`` inputs that share a scale, a zero point unless ``symmetric``.

    Symmetric steps may be negative, so that the largest weight takes the level that has no opposite, unless
    ``positive`` says that a runtime takes no such: TensorRT.

    Raises:
        UsageError: ONNX Runtime has no kernel for it. (Of 2 bits in blocks of 16 it unpacks the whole matrix at every
            call: 10 ms for the 0.1 ms of blocks of 32, of 1536 x 1536.)
    """

    bits: Bits
    size: int = 32
    symmetric: bool = True
    positive: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (2, 4, 8):
            raise UsageError(f"no weights of {self.bits} bits", where="bits", cure="use 2, 4 or 8")
        if self.size not in SIZES or (self.bits == 2 and self.size == SIZES[0]):
            sizes = SIZES[1:] if self.bits == 2 else SIZES
            what = f"no blocks of {self.size} weights of {self.bits} bits"
            raise UsageError(what, where="block size", cure=f"use {', '.join(map(str, sizes))}")

    @property
    def middle(self) -> int:
        """The level of 0 where there is no zero point."""
        return 1 << (self.bits - 1)

    @property
    def highest(self) -> int:
        """The last level; the first is 0."""
        return (1 << self.bits) - 1

    def count(self, depth: int) -> int:
        """Return how many blocks so many inputs take."""
        return -(-depth // self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values a block may take, ``(level - zero) * step``: both float32 [rows, blocks], zeros whole numbers."""

    steps: FloatArray
    zeros: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A rounded matrix [rows, depth]: ``levels`` uint8 [rows, blocks * size], and the grid of each block."""

    format: BlockFormat
    depth: int
    levels: LevelArray
    grid: Grid

    def spell_out(self) -> FloatArray:
        """Return the floats [rows, depth]."""
        cut = split(self.levels.astype(np.float32), self.format.size)
        floats: FloatArray = (cut - self.grid.zeros[..., None]) * self.grid.steps[..., None]
        return floats.reshape(len(cut), -1)[:, : self.depth]

    def pack(self) -> LevelArray:
        """Return the levels as uint8 [rows, blocks, size * bits / 8]."""
        return pack_bits(split(self.levels, self.format.size), self.format.bits)

    def pack_zeros(self) -> LevelArray | None:
        """Return the zero points as uint8 [rows, ceil(blocks * bits / 8)]; None where they are the middle."""
        if self.format.symmetric:
            return None
        return pack_bits(self.grid.zeros.astype(np.uint8), self.format.bits)


def split(rows: NDArray[Number], size: int) -> NDArray[Number]:
    """Return [rows, depth] as [rows, blocks, size], with zeros behind the last input."""
    count, depth = rows.shape
    if depth % size:
        rows = np.pad(rows, ((0, 0), (0, -depth % size)))
    return rows.reshape(count, -1, size)


def fit_grid(rows: FloatArray, layout: BlockFormat) -> Grid:
    """Return the grid that spans each block of float32 [rows, depth] whole."""
    return _span(split(rows, layout.size), layout, 1.0)


def search_grid(rows: FloatArray, layout: BlockFormat, importance: FloatArray) -> Grid:
    """Return the grid of least squared error, each input weighed by ``importance`` [depth].

    Large weights of a block may be cut off, so that the others are told apart better: the search for clipping of
    Lin et al. (AWQ, arXiv 2306.00978, section 3), a block at a time.
    """
    cut, weights = split(rows, layout.size), split(importance[None], layout.size)
    best = _span(cut, layout, _SHARES[0])
    least = _measure(cut, best, layout, weights)
    for share in _SHARES[1:]:
        grid = _span(cut, layout, share)
        error = _measure(cut, grid, layout, weights)
        better = error < least
        least = np.where(better, error, least)
        best = Grid(steps=np.where(better, grid.steps, best.steps), zeros=np.where(better, grid.zeros, best.zeros))
    return best


def round_to(rows: FloatArray, layout: BlockFormat, grid: Grid) -> Blocks:
    """Return the levels of the grid nearest to float32 [rows, depth]."""
    levels = _find_levels(split(rows, layout.size), grid, layout).astype(np.uint8)
    return Blocks(format=layout, depth=rows.shape[1], levels=levels.reshape(len(rows), -1), grid=grid)


def pack_bits(values: LevelArray, bits: Bits) -> LevelArray:
    """Return uint8 values packed along the last axis, filled up with zeros to whole bytes."""
    parts = 8 // bits
    count = values.shape[-1]
    if count % parts:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -count % parts)])
    packed = values[..., ::parts].copy()
    for part in range(1, parts):
        packed |= values[..., part::parts] << (part * bits)
    return packed


def _span(cut: FloatArray, layout: BlockFormat, share: float) -> Grid:
    """Return the grid over ``share`` of what each block [rows, blocks, size] spans; of a block of zeros any step does.

    Symmetric, the value of largest magnitude is level 0, so that all levels are in use, unless steps are positive.
    """
    if layout.symmetric:
        lowest, highest = cut.min(axis=2), cut.max(axis=2)
        peak = np.where(-lowest > highest, lowest, highest) * np.float32(share)
        zeros = np.full(peak.shape, layout.middle, np.float32)
        steps = np.abs(peak) / (layout.middle - 1) if layout.positive else -peak / layout.middle
        return Grid(steps=np.where(steps == 0, np.float32(1), steps).astype(np.float32), zeros=zeros)
    # Zero points are levels, so that 0 lies within.
    lowest = np.minimum(cut.min(axis=2), 0) * np.float32(share)
    highest = np.maximum(cut.max(axis=2), 0) * np.float32(share)
    steps = (highest - lowest) / layout.highest
    steps = np.where(steps == 0, np.float32(1), steps).astype(np.float32)
    zeros = np.clip(np.rint(-lowest / steps), 0, layout.highest).astype(np.float32)
    return Grid(steps=steps, zeros=zeros)


def _find_levels(cut: FloatArray, grid: Grid, layout: BlockFormat) -> FloatArray:
    levels = cut / grid.steps[..., None]
    np.rint(levels, out=levels)
    levels += grid.zeros[..., None]
    return np.clip(levels, 0, layout.highest, out=levels)


def _measure(cut: FloatArray, grid: Grid, layout: BlockFormat, weights: FloatArray) -> FloatArray:
    """Return the weighed squared error [rows, blocks]."""
    off = _find_levels(cut, grid, layout)
    off -= grid.zeros[..., None]
    off *= grid.steps[..., None]
    off -= cut
    np.square(off, out=off)
    error: FloatArray = np.einsum("rbs,rbs->rb", off, np.broadcast_to(weights, off.shape))
    return error
