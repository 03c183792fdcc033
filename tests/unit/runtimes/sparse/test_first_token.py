"""What a layer makes when it first meets a single token: made by many threads at once, it answers as made by one."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from runtimes.sparse.storage import encode
from tests.unit.runtimes.sparse.single_node import draw_mask, find_library, open_linear

_THREADS = 8


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_threads_that_are_first_at_once_get_one_answer(dtype):
    find_library()
    random = np.random.default_rng(0)
    weight = (random.integers(-128, 128, (300, 500)) * draw_mask(random, 300, 500, (1, 1), 0.3)).astype(dtype)
    bias = np.zeros(300, np.float32)
    scales = np.ones(300, np.float32) if dtype == np.int8 else None
    # The least and greatest of a token are -128 and 127: its levels are its numbers, and the answer is exact.
    x = random.integers(-128, 128, (1, 500)).astype(np.float32)
    x[0, :2] = -128, 127
    for _ in range(5):
        session, together = open_linear(encode(weight, (1, 1)), bias, scales), Barrier(_THREADS)

        def ask(_, session=session, together=together):
            together.wait()
            return session.run(None, {"x": x})[0]

        with ThreadPoolExecutor(_THREADS) as pool:
            for found in pool.map(ask, range(_THREADS)):
                np.testing.assert_array_equal(found, x @ weight.T.astype(np.float32))
