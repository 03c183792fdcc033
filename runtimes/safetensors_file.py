"""Reads tensors of a safetensors checkpoint one by one through a memory map, without torch.

In: a ``.safetensors`` file or a directory of them. Out: names, types, shapes, and raw arrays.
Format: https://huggingface.co/docs/safetensors (8 bytes length, JSON header, data).
Must not import: anything but numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UnsupportedModel

# Types numpy lacks are read as unsigned integers of their width; only their sign bit and zero-ness matter here.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16", "F8_E4M3": "uint8", "F8_E5M2": "uint8",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_BIT_FLOATS = {"BF16", "F8_E4M3", "F8_E5M2"}
# The format's own limit on the header, against files that claim gigabytes of JSON.
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a checkpoint: ``dtype`` is the format's name (``F32``, ``BF16``), ``start`` a byte offset."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    def size_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * np.dtype(_DTYPES[self.dtype]).itemsize

    def read_raw(self) -> NDArray[Any]:
        """Return the values, of types that numpy lacks the bits."""
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, np.dtype(_DTYPES[self.dtype]))
        return np.memmap(self.file, np.dtype(_DTYPES[self.dtype]), "r", offset=self.start, shape=self.shape)

    def read_nonzero(self) -> NDArray[np.bool_]:
        """Return where the values are not zero (minus zero is zero), in the tensor's shape."""
        raw = self.read_raw()
        if self.dtype in _BIT_FLOATS:
            sign = raw.dtype.type(1 << (raw.dtype.itemsize * 8 - 1))
            return np.asarray((raw & ~sign) != 0)
        return np.asarray(raw != 0)


def list_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """List the tensors of a file, or of every ``*.safetensors`` of a directory, in the order of the files.

    Raises:
        UnsupportedModel: there is none, or one is damaged.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise UnsupportedModel(
            "the directory holds no .safetensors file", where=str(path), cure="save it with model.save_pretrained(...)"
        )
    return tuple(tensor for file in files for tensor in _read_header(file))


def _read_header(file: Path) -> Iterator[StoredTensor]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise _damaged(file, "its header length is impossible")
        try:
            header = json.loads(stream.read(length))
            entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
            for name, entry in entries:
                tensor = StoredTensor(
                    file=file,
                    name=name,
                    dtype=entry["dtype"],
                    shape=tuple(int(axis) for axis in entry["shape"]),
                    start=8 + length + int(entry["data_offsets"][0]),
                )
                if tensor.dtype not in _DTYPES or tensor.start + tensor.size_bytes() > size:
                    raise _damaged(file, f"tensor {name} does not fit the file")
                yield tensor
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise _damaged(file, "its header cannot be read") from error


def _damaged(file: Path, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"not a safetensors file: {why}", where=str(file), cure="fetch or save it again")
