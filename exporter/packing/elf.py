"""For which CPUs a library of sparse kernels is, read from the first bytes of its file; nothing is loaded.

In: a file. Out: the architecture. Must not import anything but the standard library and ``runtimes``.

Source: System V gABI, "ELF header" (e_ident, e_type, e_machine); e_machine of the ABIs of x86-64 and AArch64.
"""

from __future__ import annotations

import struct
from pathlib import Path

from runtimes.errors import UsageError

_HEADER = struct.Struct("<4s5B7x2H")
# ELFCLASS64, ELFDATA2LSB, EV_CURRENT.
_IDENTITY = (2, 1, 1)
_SHARED_OBJECT = 3
_MACHINES = {62: "x86_64", 183: "aarch64"}
# What ONNX Runtime calls: a library without it holds other things.
_ENTRY = b"\0RegisterCustomOps\0"


def read_architecture(library: Path) -> str:
    """Return the architecture of a library of operators for ONNX Runtime (``x86_64``, ``aarch64``).

    Raises:
        UsageError: it cannot be read, is no shared library for one of these under Linux, or has no operators.
    """
    cure = "give a libstepdown_sparse.so built for the device (docs/bundle.md says how)"
    try:
        data = library.read_bytes()
    except OSError as error:
        raise UsageError(f"the kernels cannot be read: {error.strerror}", where=str(library), cure=cure) from error
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        raise UsageError("not a library: it has no ELF header", where=str(library), cure=cure)
    _, *identity, _, _, kind, machine = _HEADER.unpack_from(data)
    if tuple(identity) != _IDENTITY or kind != _SHARED_OBJECT or machine not in _MACHINES:
        raise UsageError("not a shared library for x86-64 or AArch64", where=str(library), cure=cure)
    if _ENTRY not in data:
        raise UsageError("the library registers no operators with ONNX Runtime", where=str(library), cure=cure)
    return _MACHINES[machine]
