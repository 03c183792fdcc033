"""Keeps the memory of a long run of large models and arrays from creeping up. Must not import a runtime."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MAPPED_FROM_BYTES = 256 << 10
#: Where glibc's own moving threshold ends once a process has freed large blocks (DEFAULT_MMAP_THRESHOLD_MAX).
_SETTLED_BYTES = 32 << 20
_WORTH_LOOKING_BYTES = 64 << 20
_NEW_OBJECTS = 50_000


@contextmanager
def map_large_blocks() -> Iterator[None]:
    """Have the C library map every block of 256 KiB and more by itself, so that freeing it gives it back.

    glibc otherwise raises that threshold to the largest block freed so far, takes the next ones from its heaps, and
    the holes that arrays of many lengths leave there add up: MiniLM grew by 54 MB over 768 texts, with this by 6 MB.
    Elsewhere than on Linux with glibc nothing is done. Afterwards the thresholds are what they would have become.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _SETTLED_BYTES)
        library.mallopt(_TRIM_THRESHOLD, 2 * _SETTLED_BYTES)


@contextmanager
def collect_rarely() -> Iterator[None]:
    """Look for what holds itself in circles after 50,000 new objects, not 700: behind a stage :func:`give_back` does.

    Tracing makes objects by the million, and nearly all of them stay: Python went through them 2,300 times for
    SmolLM2-135M, in a tenth of the time that tracing took.
    """
    before = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def give_back(worked_on_bytes: int) -> None:
    """Collect what nothing refers to, and return what is free to the system. Called behind a stage of an export.

    A graph of onnx_ir holds itself in circles, which Python looks for by the number of objects, not their size: of
    SmolLM2-135M each that was edited left 0.5 GB behind. To look takes 0.3 s whatever is found, with PyTorch and
    transformers loaded: behind a small model, ``worked_on_bytes`` of weights, nothing is done.
    """
    if worked_on_bytes < _WORTH_LOOKING_BYTES:
        return
    gc.collect()
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
