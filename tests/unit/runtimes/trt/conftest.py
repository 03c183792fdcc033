"""What this machine's GPU is, is asked once a process: tests that put another in its place must not leave it there."""

import pytest

from runtimes.trt import device


@pytest.fixture(autouse=True)
def _forget_the_gpu():
    yield
    device.read_compute_capability.cache_clear()
