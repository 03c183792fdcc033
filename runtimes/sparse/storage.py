"""How a sparse weight is stored: blocks that are not zero, and how far apart they are.

In: a dense weight [out, in]. Out: three arrays, which become initializers of a model, and the way back.
Must not import: anything but numpy.

A weight is cut into blocks of ``block_out`` x ``block_in``; what an edge block lacks is zeros. Each row of blocks
lists its blocks from left to right. The place of a block is kept as its distance to the one before: one byte instead
of two, and a file cannot name a column twice or out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import CorruptArtifact

# (block_out, block_in), always in this order. The kernels know these and no others.
BLOCKS = ((1, 1), (4, 1), (8, 1), (16, 1), (1, 4), (4, 4), (16, 4))

# The limits of the kernels (csrc/checked.h, which says why): outputs or inputs, both multiplied, and inputs in INT8.
_MOST_FEATURES, _MOST_WEIGHTS, _MOST_INT8_INPUTS = 1 << 24, 1 << 32, 1 << 16

# A gap is one byte. A longer one is bridged by entries of zeros, each of which moves on by 256 columns.
_LONGEST_GAP = 255

# A few bytes of a file could claim any number of zeros, and take all memory. What stores more than this many values
# takes a byte for 64 of them: no layer of that size is pruned to less than one INT8 value (two bytes) in 128.
_FREE_VALUES, _VALUES_PER_BYTE = 1 << 24, 64

# To place a block takes some 45 bytes, so they are counted this many rows of the weight at a time: whole blocks of all.
_BAND = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWeight:
    """A weight in blocks.

    Attributes:
        shape: (out, in) of the dense weight.
        block: (block_out, block_in), one of :data:`BLOCKS`.
        values: float32 or int8, [entries * block_out * block_in]: the blocks, each row by row.
        gaps: uint8, [entries]: columns of blocks skipped since the entry before, from the left edge at first.
        row_starts: int32, [block_rows + 1]: where the entries of each row of blocks begin; the last is their count.
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    values: NDArray[Any]
    gaps: NDArray[np.uint8]
    row_starts: NDArray[np.int32]

    @property
    def size_bytes(self) -> int:
        """What the three arrays take."""
        return self.values.nbytes + self.gaps.nbytes + self.row_starts.nbytes


def encode(weight: NDArray[Any], block: tuple[int, int]) -> StoredWeight:
    """Store a dense weight.

    Args:
        weight: float32 or int8, [out, in].
        block: One of :data:`BLOCKS`.

    Raises:
        ValueError: the weight or the block is none of those, the weight is larger than the kernels take, or it has more
            blocks than int32 counts.
    """
    if weight.ndim != 2 or not weight.size or weight.dtype not in (np.float32, np.int8):
        raise ValueError(f"a weight is a float32 or int8 matrix, not {weight.dtype} {list(weight.shape)}")
    excess = find_excess((weight.shape[0], weight.shape[1]), int8=weight.dtype == np.int8)
    if excess:
        raise ValueError(excess)
    if block not in BLOCKS:
        raise ValueError(f"{block[0]}x{block[1]} is none of the blocks the kernels know")
    blocks = cut_blocks(weight, block)
    rows, columns, bridges, gaps = _place(blocks)
    places = np.cumsum(bridges + 1) - 1
    entries = int(places[-1]) + 1 if len(places) else 0
    per_row = np.bincount(rows, weights=bridges + 1, minlength=len(blocks)).astype(np.int64)
    if entries > np.iinfo(np.int32).max:
        raise ValueError(f"{entries} blocks are more than int32 counts")
    stored_gaps = np.full(entries, _LONGEST_GAP, np.uint8)
    stored_gaps[places] = gaps
    values = np.zeros((entries, *block), weight.dtype)
    values[places] = blocks[rows, columns]
    return StoredWeight(
        shape=(weight.shape[0], weight.shape[1]),
        block=block,
        values=values.reshape(-1),
        gaps=stored_gaps,
        row_starts=np.concatenate([[0], np.cumsum(per_row)]).astype(np.int32),
    )


def stack(weights: Sequence[StoredWeight]) -> StoredWeight:
    """Return weights below each other: [sum of their outs, in].

    Args:
        weights: At least one; of one width, one type and one block, of which each has whole ones from top to bottom.
    """
    counts = np.concatenate([np.diff(one.row_starts.astype(np.int64)) for one in weights])
    return StoredWeight(
        shape=(sum(one.shape[0] for one in weights), weights[0].shape[1]),
        block=weights[0].block,
        values=np.concatenate([one.values for one in weights]),
        gaps=np.concatenate([one.gaps for one in weights]),
        row_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    )


def find_excess(shape: tuple[int, int], *, int8: bool) -> str:
    """Return what of a weight [out, in] is more than the kernels take, and how much they do, or nothing."""
    out, inputs = shape
    limits = (
        ("out_features", out, _MOST_FEATURES),
        ("in_features", inputs, _MOST_INT8_INPUTS if int8 else _MOST_FEATURES),
        ("out_features * in_features", out * inputs, _MOST_WEIGHTS),
    )
    found = (f"{name} is {number}; expected at most {most}" for name, number, most in limits if number > most)
    return next(found, "")


def count_entries(nonzero: NDArray[np.bool_], block: tuple[int, int]) -> int:
    """Return how many entries :func:`encode` stores for a weight [out, in] given as where it is not zero."""
    bands = (nonzero[start : start + _BAND] for start in range(0, len(nonzero), _BAND))
    return sum(_count_placed(cut_blocks(band, block)) for band in bands)


def count_bytes(shape: tuple[int, int], block: tuple[int, int], entries: int, *, value_bytes: int) -> int:
    """Return what the arrays take that :func:`encode` makes, with float32 (4) or int8 (1) values, without scales."""
    return entries * (block[0] * block[1] * value_bytes + 1) + 4 * (_count_blocks(shape[0], block[0]) + 1)


def decode(stored: StoredWeight) -> NDArray[Any]:
    """Return the dense weight [out, in], of the type of the values.

    Raises:
        CorruptArtifact: the arrays do not fit each other or the shape, or that is larger than the kernels take.
    """
    rows, columns = _locate(stored)
    (out, inputs), (high, wide) = stored.shape, stored.block
    blocks = np.zeros((_count_blocks(out, high), _count_blocks(inputs, wide), high, wide), stored.values.dtype)
    blocks[rows, columns] = stored.values.reshape(-1, high, wide)
    return blocks.transpose(0, 2, 1, 3).reshape(blocks.shape[0] * high, -1)[:out, :inputs]


def cut_blocks(matrix: NDArray[Any], block: tuple[int, int]) -> NDArray[Any]:
    """Return a matrix [out, in] as [block_rows, block_columns, block_out, block_in], its edges filled up with zeros."""
    (out, inputs), (high, wide) = matrix.shape, block
    rows, columns = _count_blocks(out, high), _count_blocks(inputs, wide)
    padded = matrix
    if (rows * high, columns * wide) != matrix.shape:
        padded = np.pad(matrix, ((0, rows * high - out), (0, columns * wide - inputs)))
    return padded.reshape(rows, high, columns, wide).transpose(0, 2, 1, 3)


def _place(blocks: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    """Return row, column, bridges before and gap of each block that is not zero, of what :func:`cut_blocks` gives."""
    rows, columns = np.nonzero(blocks.any(axis=(2, 3)))
    starts_row = np.diff(rows, prepend=-1) != 0
    before = np.where(starts_row, -1, np.roll(columns, 1))
    bridges, gaps = np.divmod(columns - before - 1, _LONGEST_GAP + 1)
    return rows, columns, bridges, gaps


def _count_placed(blocks: NDArray[Any]) -> int:
    *_, bridges, gaps = _place(blocks)
    return int(bridges.sum()) + len(gaps)


def _count_blocks(length: int, side: int) -> int:
    return -(-length // side)


def _locate(stored: StoredWeight) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the column of each entry's block."""
    (out, inputs), (high, wide) = stored.shape, stored.block
    _check_arrays(stored)
    excess = find_excess(stored.shape, int8=stored.values.dtype == np.int8)
    if excess:
        raise _unfit(excess)
    starts = stored.row_starts.astype(np.int64)
    entries = len(stored.gaps)
    if stored.block not in BLOCKS or min(out, inputs) < 1 or len(starts) != _count_blocks(out, high) + 1:
        raise _unfit(f"{len(starts)} row starts, {out}x{inputs} features, blocks of {high}x{wide}")
    if out * inputs > max(_FREE_VALUES, _VALUES_PER_BYTE * stored.size_bytes):
        raise _unfit(f"{stored.size_bytes} bytes for {out}x{inputs} features")
    if starts[0] != 0 or starts[-1] != entries or (np.diff(starts) < 0).any():
        raise _unfit("the row starts do not rise from 0 to the number of entries")
    if stored.values.shape != (entries * high * wide,):
        raise _unfit(f"{stored.values.size} values for {entries} blocks of {high}x{wide}")
    steps = np.cumsum(stored.gaps.astype(np.int64) + 1)
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    reached = np.concatenate([[0], steps])[starts[:-1]]
    columns = steps - reached[rows] - 1
    if entries and columns.max() >= _count_blocks(inputs, wide):
        raise _unfit(f"an entry lies in column {columns.max()} of {_count_blocks(inputs, wide)}")
    return rows, columns


def _check_arrays(stored: StoredWeight) -> None:
    kinds = {"values": ("float32", "int8"), "gaps": ("uint8",), "row_starts": ("int32",)}
    for name, dtypes in kinds.items():
        array = getattr(stored, name)
        if array.ndim != 1 or array.dtype.name not in dtypes:
            raise _unfit(f"its {name} are {array.dtype} {list(array.shape)}, not a row of {' or '.join(dtypes)}")


def _unfit(what: str) -> CorruptArtifact:
    return CorruptArtifact(f"a sparse weight is damaged: {what}", cure="export the model again, or refetch it")
