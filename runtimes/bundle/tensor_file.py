"""Reads the stored inputs and outputs of a probe: a small safetensors file, byte for byte as the format allows.

In: a file nobody vouches for. Out: arrays by name. Must not import anything but numpy and ``runtimes``.

Source: https://huggingface.co/docs/safetensors ("Format": the data is covered without holes or overlaps).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.bundle.strict_json import Fields, corrupt, load_json

# A probe is a few texts: megabytes at most. Both are held in memory.
MAX_FILE_BYTES = 256 << 20
MAX_HEADER_BYTES = 1 << 20
_MAX_AXES = 16
# Only what numpy has: a probe of bfloat16 is stored as float32.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip


def read_tensors(path: Path, where: str) -> dict[str, NDArray[Any]]:
    """Return every array of a file.

    Raises:
        CorruptArtifact: it is not a safetensors file, of a type numpy lacks, larger than a probe, or its tensors
            overlap, leave holes, or do not have the bytes of their shapes.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise corrupt(f"a probe of more than {MAX_FILE_BYTES:,} bytes", where)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise corrupt("not a safetensors file: its header length is impossible", where)
    header = Fields(load_json(data[8 : 8 + length], where), where)
    names = header.all()
    names.pop("__metadata__", None)
    values = memoryview(data)[8 + length :]
    found, spans = {}, []
    for name in names:
        array, span = _read_tensor(header.mapping(name), values, f"{where}: {name[:100]!r}")
        found[name] = array
        spans.append(span)
    _check_cover(sorted(spans), len(values), where)
    return found


def _read_tensor(entry: object, data: memoryview, where: str) -> tuple[NDArray[Any], tuple[int, int]]:
    fields = Fields(entry, where)
    dtype, shape = fields.text("dtype"), fields.items("shape", _read_size)
    offsets = fields.items("data_offsets", _read_size)
    fields.close()
    if dtype not in _DTYPES or len(shape) > _MAX_AXES or len(offsets) != 2:
        raise corrupt(f"a tensor of type {dtype[:40]!r} and {len(shape)} axes cannot be read", where)
    start, stop = offsets
    kind = np.dtype(_DTYPES[dtype])
    if not start <= stop <= len(data) or stop - start != math.prod(shape) * kind.itemsize:
        raise corrupt(f"it lies at {start} to {stop}, which is not what its shape takes", where)
    if dtype == "BOOL" and any(byte > 1 for byte in data[start:stop]):
        raise corrupt("a truth value that is neither 0 nor 1", where)
    try:
        return np.frombuffer(data[start:stop], kind).reshape(shape), (start, stop)
    except ValueError as error:  # no elements, and axes beyond what numpy counts
        raise corrupt(f"a tensor of this shape cannot be: {error}", where) from error


def _check_cover(spans: list[tuple[int, int]], size: int, where: str) -> None:
    end = 0
    for start, stop in spans:
        if start != end:
            raise corrupt("its tensors overlap or leave holes", where)
        end = stop
    if end != size:
        raise corrupt("something follows its tensors", where)


def _read_size(value: object, where: str) -> int:
    if type(value) is not int or value < 0:
        raise corrupt(f"{value!r} is no size"[:200], where)
    return value
