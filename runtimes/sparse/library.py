"""Where the sparse kernels are: the library that ONNX Runtime loads for the operators of domain ``ai.stepdown``.

In: nothing. Out: the library and which build it is, or why there is none and what to do. Must not import: a runtime.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import hash_file
from runtimes.errors import MissingDependency

DOMAIN = "ai.stepdown"
# Lowers the instruction set of the kernels: scalar, avx2, avx512, avx512_vnni, neon, neon_dotprod.
ISA_VARIABLE = "STEPDOWN_SPARSE_ISA"

# In a folder of its own: among modules, Python would take it for one.
_NAME = "lib/libstepdown_sparse.so"
# Without --no-cache-dir, pip installs the wheel without kernels again that it built before.
_CURE = (
    "install a C++ compiler (g++ or clang++), then stepdown again with "
    "'pip install --force-reinstall --no-deps --no-cache-dir'; "
    "in a clone: cmake -S . -B build/kernels && cmake --build build/kernels"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBuild:
    """One build of the kernels: ``version`` of stepdown, which says what they answer, and ``sha256`` of the library."""

    version: str
    sha256: str


def library_path() -> Path:
    """Return the library, once it is known that it loads on this machine.

    Raises:
        MissingDependency: it was not built, as where stepdown was installed without a compiler, or is for another CPU.
    """
    path = Path(__file__).parent / _NAME
    if not path.is_file():
        raise MissingDependency("the sparse kernels were not built", where=str(path), cure=_CURE)
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingDependency(f"the sparse kernels do not load: {error}", where=str(path), cure=_CURE) from error
    return path


def describe_build() -> KernelBuild:
    """Return which kernels are here.

    Raises:
        MissingDependency: none are; see :func:`library_path`.
    """
    # 20 ms to import, which a device would pay at every start.
    from importlib.metadata import version

    return KernelBuild(version=version("stepdown"), sha256=hash_file(library_path()))


def why_unavailable() -> str | None:
    """Return None where the sparse kernels can be used, else why not, with the cure."""
    try:
        library_path()
    except MissingDependency as error:
        return str(error)
    return None
