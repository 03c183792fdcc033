"""Whole numbers of 1, 2 or 4 bits, packed into bytes.

In: int8 arrays. Out: uint8 arrays an eighth, a quarter or half as long, and back. Must not import torch.

Numbers are stored from the lowest one of their width upwards, so that all bits are used::

    bits  numbers   stored
    1     -1, 1     0, 1
    2     -2 .. 1   0 .. 3      ternary weights are 1, 2 and 3
    4     -8 .. 7   0 .. 15

Of the numbers in a byte the first has the lowest bits. Every row begins with a byte of its own; what is left of its
last byte is zero. ONNX Runtime's MatMulNBits and GatherBlockQuantized read 2 and 4 bits in this order, and take the
same middle for zero where they are given no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bits = Literal[1, 2, 4]
#: What weights of few levels are called: -1 and 1, or -1, 0 and 1.
Form = Literal["binary", "ternary"]
BITS: Mapping[Form, Bits] = {"binary": 1, "ternary": 2}


def pack_levels(levels: NDArray[np.int8], bits: Bits) -> NDArray[np.uint8]:
    """Pack int8 [..., count] into uint8 [..., bytes].

    Raises:
        ValueError: a number does not fit into so many bits.
    """
    if bits == 1:
        fits = np.abs(levels) == 1
        stored = (levels > 0).astype(np.uint8)
    else:
        half = 1 << (bits - 1)
        fits = (levels >= -half) & (levels < half)
        stored = (levels + half).astype(np.uint8)
    if not fits.all():
        raise ValueError(f"{levels[~fits][0]} is no number of {bits} bits")
    each = 8 // bits
    rest = -levels.shape[-1] % each
    padded = np.pad(stored, [(0, 0)] * (levels.ndim - 1) + [(0, rest)])
    grouped = padded.reshape(*levels.shape[:-1], padded.shape[-1] // each, each)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(grouped << _list_shifts(bits), axis=-1)
    return packed


def unpack_levels(packed: NDArray[np.uint8], bits: Bits, count: int) -> NDArray[np.int8]:
    """Return the ``count`` numbers of each row: what :func:`pack_levels` was given.

    Raises:
        ValueError: the rows have another length.
    """
    if packed.shape[-1] != -(-count * bits // 8):
        raise ValueError(f"{packed.shape[-1]} bytes do not hold {count} numbers of {bits} bits")
    spread = (packed[..., None] >> _list_shifts(bits)) & ((1 << bits) - 1)
    stored = spread.reshape(*packed.shape[:-1], packed.shape[-1] * (8 // bits))[..., :count].astype(np.int8)
    return stored * 2 - 1 if bits == 1 else stored - (1 << (bits - 1))


def find_width(levels: NDArray[np.int8]) -> Bits | None:
    """Return the least bits that hold all of ``levels``; None where 4 do not."""
    if levels.size and (np.abs(levels) == 1).all():
        return 1
    low, high = (int(levels.min()), int(levels.max())) if levels.size else (0, 0)
    if low >= -2 and high <= 1:
        return 2
    return 4 if low >= -8 and high <= 7 else None


def _list_shifts(bits: Bits) -> NDArray[np.uint8]:
    return np.arange(0, 8, bits, dtype=np.uint8)
