"""What must hold of an ONNX file before a runtime may see it: it reads no other file, and runs no other code.

In: a model among the files of its variant. Out: what else the model needs, or an error. External data stays inside the
bundle, in listed files, within their bounds; operators are ONNX's, ONNX Runtime's own, the file's own functions, or
those of listed kernels. Must not import onnx, a runtime, nor anything outside ``runtimes``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from runtimes.artifact import TensorSpec
from runtimes.bundle.names import check_path
from runtimes.bundle.strict_json import corrupt, mismatch
from runtimes.errors import UnsupportedModel
from runtimes.feeds import describe_specs
from runtimes.onnx_file import ExternalTensor, OnnxHeader, read_header
from runtimes.sparse.library import DOMAIN

# ONNX's own, ONNX Runtime's own (its contrib operators, and the layout it rewrites convolutions to).
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
# Operators that open files, or run code that the model names or brings: a compiled model (EPContext, Snpe), Python by
# name (PythonOp, PyOp), kernels of Triton, operators of PyTorch by name (ATen). Builds of ONNX Runtime may have them.
# Those of com.microsoft that compute alone are not listed instead: they are a hundred, and each version brings more.
_REFUSED = frozenset({"EPContext", "Snpe", "PythonOp", "PythonOpGrad", "PyOp", "PyCustomOp", "TritonOp", "ATen"})
_KEYS = frozenset({"location", "offset", "length", "checksum"})
_MAX_DIGITS = 18
# What export and pack write, and what other tools call it; no other kind of file passes as weights.
_WEIGHT_SUFFIXES = (".data", ".bin", ".onnx_data")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Extent:
    """Where a tensor's values lie: in bytes ``start`` to ``stop`` of a file of the variant."""

    file: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNeeds:
    """What a model needs beside itself: parts of other files of its variant, and whether also the sparse kernels."""

    extents: tuple[Extent, ...]
    kernels: bool


def check_onnx(folder: Path, model: str, files: Sequence[str]) -> OnnxNeeds:
    """Check one ONNX file of an unpacked variant.

    Args:
        folder: The variant's folder.
        model: The file, by its path in there.
        files: Every listed path of the variant.

    Raises:
        CorruptArtifact: it is damaged, an input or output is no tensor, its external data is not where it may be, or
            an operator is of a domain that nothing here stands for.
    """
    header = _read_header(folder / model, model)
    extents = tuple(_check_tensor(tensor, folder, model, files) for tensor in header.tensors)
    _check_operators(header.operators, frozenset(header.functions), model)
    return OnnxNeeds(extents=extents, kernels=DOMAIN in header.domains)


def check_external(folder: Path, needs: Sequence[OnnxNeeds]) -> None:
    """Check that external data holds the tensors of a variant's models and nothing else: between them lie zeros.

    Args:
        folder: The variant's folder.
        needs: Of every model in it, for two may share their weights.

    Raises:
        CorruptArtifact: other bytes lie in there.
    """
    extents = sorted({extent for need in needs for extent in need.extents})
    for file, found in groupby(extents, key=attrgetter("file")):
        end, path = 0, folder / file
        for extent in found:
            _require_zeros(path, file, end, extent.start)
            end = max(end, extent.stop)
        _require_zeros(path, file, end, path.stat().st_size)


def _require_zeros(path: Path, file: str, start: int, stop: int) -> None:
    """Check padding; where ``stop`` is not behind ``start`` there is none."""
    with path.open("rb") as stream:
        for at in range(start, stop, _PIECE_BYTES):
            stream.seek(at)
            if stream.read(min(_PIECE_BYTES, stop - at)).strip(b"\0"):
                raise corrupt(f"bytes {start:,} to {stop:,} belong to no tensor, and are not zero", file)


def check_specs(path: Path, where: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Check that a model takes and gives what the description says.

    Raises:
        CorruptArtifact: the description says something else, or an input or output is no tensor.
    """
    header = _read_header(path, where)
    for side, listed, found in (("inputs", inputs, header.inputs), ("outputs", outputs, header.outputs)):
        if listed != found:
            raise mismatch(
                f"the description does not tell the truth about the model's {side}",
                where,
                expected=describe_specs(listed) or "none",
                found=describe_specs(found) or "none",
            )


def _read_header(path: Path, where: str) -> OnnxHeader:
    """Read a header; what we support no model with makes a bundle a bad one: an input that is no tensor, training."""
    try:
        return read_header(path)
    except UnsupportedModel as error:
        raise corrupt(error.what, f"{where}: {error.where}") from error


def _check_tensor(tensor: ExternalTensor, folder: Path, model: str, files: Sequence[str]) -> Extent:
    """Return where the values of an external tensor lie."""
    where = f"{model}: {tensor.name[:100]!r}"
    entries = dict(tensor.entries)
    if len(entries) != len(tensor.entries) or not set(entries) <= _KEYS or "location" not in entries:
        raise corrupt("what is said of its external data is not whole, or not known", where)
    location = entries["location"]
    check_path(location, where)
    if not location.endswith(_WEIGHT_SUFFIXES):
        raise corrupt(f"its external data {location!r} is called like no weights: {', '.join(_WEIGHT_SUFFIXES)}", where)
    path = posixpath.join(posixpath.dirname(model), location)
    if path not in files or path == model:
        raise corrupt(f"its external data {location!r} is not listed", where)
    size, offset = (folder / path).stat().st_size, _read_number(entries.get("offset", "0"), where)
    length = _read_number(entries["length"], where) if "length" in entries else tensor.size_bytes
    if length is None or (tensor.size_bytes is not None and length != tensor.size_bytes):
        raise corrupt(f"its external data has {length} bytes, {tensor.size_bytes} belong to its type and shape", where)
    if offset + length > size:
        raise corrupt(f"its external data ends at byte {offset + length}, {location} has {size}", where)
    return Extent(file=path, start=offset, stop=offset + length)


def _check_operators(operators: Sequence[tuple[str, str]], functions: frozenset[tuple[str, str]], model: str) -> None:
    for domain, name in operators:
        where = f"{model}: {domain[:80]!r} {name[:80]!r}"
        if name in _REFUSED:
            raise corrupt("this operator opens files or runs code that the model names", where)
        if domain not in _DOMAINS and domain != DOMAIN and (domain, name) not in functions:
            raise corrupt("nothing here stands for the operators of this domain", where)


def _read_number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise corrupt(f"{text[:40]!r} is no number of bytes", where)
    return int(text)
