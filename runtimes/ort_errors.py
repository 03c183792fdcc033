"""ONNX Runtime's refusals as errors of ours, and its absence as one.

In: what it raises. Out: the error with what to do about it. ``onnxruntime`` is imported inside the functions that need
it. Must not import onnx, torch, or other runtimes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from runtimes.errors import CorruptArtifact, MissingDependency, StepdownError, UnsupportedModel, UsageError
from runtimes.sparse.library import ISA_VARIABLE

_INSTALL = "pip install 'stepdown[onnxruntime]'"
_CURE_CORRUPT = "fetch or export the file again"


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime is not installed", where=str(error), cure=_INSTALL) from error
    module: ModuleType = onnxruntime
    return module


@cache
def ort_errors() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exceptions: they share no base class but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # RuntimeError and ValueError: what its Python layer and the providers' loaders raise.
    return (*(v for v in vars(state).values() if _is_exception(v)), RuntimeError, ValueError)


@contextmanager
def explain_refusals(path: Path) -> Iterator[None]:
    """Turn ONNX Runtime's refusals to load a model into our errors."""
    try:
        yield
    except ort_errors() as error:
        raise _translate(error, path) from error


def shorten_message(error: Exception) -> str:
    """Return the first line of ONNX Runtime's message without code and source position, at most 300 characters."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = line.rpartition(" : ")[2] if line.startswith("[ONNXRuntimeError]") else line
    return text if len(text) <= 300 else text[:297] + "..."


def _translate(error: Exception, path: Path) -> StepdownError:
    message, kind = shorten_message(error), type(error).__name__
    if ISA_VARIABLE in message:
        return UsageError(message, where=str(path), cure=f"unset {ISA_VARIABLE}")
    unknown_op = "is not a registered function/op" in message or "No Op registered" in message
    if kind == "NotImplemented" or unknown_op or "unsupported" in message.lower():
        return UnsupportedModel(
            f"ONNX Runtime cannot run it: {message}",
            where=str(path),
            cure="update onnxruntime, or export without the op",
        )
    if kind in {"EPFail", "RuntimeError"}:
        return MissingDependency(
            f"an execution provider failed: {message}", where=str(path), cure="see stepdown doctor"
        )
    return CorruptArtifact(f"ONNX Runtime cannot load it: {message}", where=str(path), cure=_CURE_CORRUPT)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)
