"""How much memory this process holds and has held. Linux tells it exactly; elsewhere psutil does."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def read_resident_bytes() -> int:
    """Return the memory that is resident now, without what the allocator keeps although it is free.

    How much that is depends on chance: with it, one load in five of the same model differed from the others by a sixth.
    """
    _return_free_memory()
    return _read("VmRSS", "rss")


def read_peak_bytes() -> int:
    """Return the most that was ever resident.

    Not ``getrusage``: its figure outlives exec, so a child of a large process starts with the parent's peak.
    """
    return _read("VmHWM", "peak_wset")


def _return_free_memory() -> None:
    """Have glibc give what is free back to the system (malloc_trim(3)); other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _read(field: str, psutil_field: str) -> int:
    if _STATUS.is_file():
        found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), flags=re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import psutil

    told = psutil.Process().memory_info()
    return int(getattr(told, psutil_field, told.rss))
