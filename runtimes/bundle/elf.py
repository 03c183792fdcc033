"""For which CPU a shared library was built, read from its header: nothing of it is loaded.

In: a file. Out: the architecture as Linux names it. Must not import anything but the standard library and ``runtimes``.

Source: System V ABI, "ELF Header"; machine numbers from elf.h.
"""

from __future__ import annotations

import struct
from pathlib import Path

from runtimes.bundle.strict_json import corrupt

# EM_X86_64, EM_AARCH64
_MACHINES = {62: "x86_64", 183: "aarch64"}
_HEADER_BYTES = 64
_CLASS_64, _LITTLE_ENDIAN, _SHARED = 2, 1, 3


def read_elf(path: Path, where: str | None = None) -> str:
    """Return the architecture of a 64-bit shared library.

    Raises:
        CorruptArtifact: it is not one, or for a CPU that is not known here.
    """
    place = where or str(path)
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or not head.startswith(b"\x7fELF"):
        raise corrupt("it is not a shared library", place)
    kind, machine = struct.unpack_from("<HH", head, 16)
    if (head[4], head[5], kind) != (_CLASS_64, _LITTLE_ENDIAN, _SHARED):
        raise corrupt("it is not a 64-bit, little-endian shared library", place)
    if machine not in _MACHINES:
        raise corrupt(f"it is for machine {machine} of ELF, which is not known here", place)
    return _MACHINES[machine]
