"""For which CPU a library is that somebody gives for a bundle, and whether ONNX Runtime could load operators from it.

In: a file. Out: the architecture; nothing is loaded. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtimes.bundle.elf import read_elf
from runtimes.errors import CorruptArtifact, UsageError

# What ONNX Runtime calls: a library without it holds other things.
_ENTRY = b"\0RegisterCustomOps\0"
_CURE = "give a libstepdown_sparse.so built for the device (docs/bundle.md says how)"


def sort_kernels(libraries: Sequence[Path]) -> dict[str, Path]:
    """Return libraries by the architecture each is for.

    Raises:
        UsageError: one is no such library, or two are for one architecture.
    """
    found: dict[str, Path] = {}
    for library in libraries:
        architecture = read_architecture(library)
        if architecture in found:
            raise UsageError(
                f"two libraries of kernels for {architecture}",
                where=str(library),
                cure="give one for each architecture",
            )
        found[architecture] = library
    return found


def read_architecture(library: Path) -> str:
    """Return the architecture of a library of operators for ONNX Runtime (``x86_64``, ``aarch64``).

    Raises:
        UsageError: it cannot be read, is no shared library for one of these, or has no operators.
    """
    try:
        architecture, data = read_elf(library), library.read_bytes()
    except OSError as error:
        raise UsageError(f"the kernels cannot be read: {error.strerror}", where=str(library), cure=_CURE) from error
    except CorruptArtifact as error:
        raise UsageError(f"these are no kernels: {error.what}", where=str(library), cure=_CURE) from error
    if _ENTRY not in data:
        raise UsageError("the library registers no operators with ONNX Runtime", where=str(library), cure=_CURE)
    return architecture
