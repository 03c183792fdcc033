"""What counts as memory of a process."""

import ctypes
import sys

import pytest

from bench.processes.memory import read_peak_bytes, read_resident_bytes

CHUNK = 100_000


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library cannot be asked"
)
def test_memory_that_is_free_does_not_count_and_the_peak_remembers_it():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    before = read_resident_bytes()
    held = [libc.malloc(CHUNK) for _ in range(600)]
    for place in held:
        ctypes.memset(place, 1, CHUNK)
    assert read_resident_bytes() - before > 50e6
    # The last one stays: it keeps the heap from shrinking by itself.
    for place in held[:-1]:
        libc.free(place)
    assert read_resident_bytes() - before < 10e6
    assert read_peak_bytes() - before > 50e6
    libc.free(held[-1])
