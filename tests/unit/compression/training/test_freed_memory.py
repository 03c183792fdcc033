import sys

import numpy as np
import psutil
import pytest

from compression.training.freed_memory import keep_freed_memory

SIZE = 256 << 20


def read_resident_bytes():
    """Return what is resident, with what the allocator keeps although it is free."""
    return psutil.Process().memory_info().rss


def test_it_can_be_entered_again_and_lets_errors_through():
    for _ in range(2):
        with pytest.raises(KeyError), keep_freed_memory():
            raise KeyError


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_freed_is_kept_until_the_end():
    start = read_resident_bytes()
    with keep_freed_memory():
        large = np.ones(SIZE, np.uint8)
        del large
        held = read_resident_bytes() - start
    left = read_resident_bytes() - start
    assert held > 0.9 * SIZE
    assert left < 0.1 * SIZE
