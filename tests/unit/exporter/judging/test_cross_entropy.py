"""What tokens cost, against SciPy, and how much memory it takes to say."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import log_softmax

from exporter.judging.cross_entropy import cost_tokens


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [0, 1, 7, 130])
def test_it_is_the_negative_log_likelihood(dtype, rows):
    rng = np.random.default_rng(rows)
    logits = (30 * rng.standard_normal((rows, 40_000))).astype(dtype)
    wanted = rng.integers(0, 40_000, rows)
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(rows), wanted] if rows else np.zeros(0)
    np.testing.assert_allclose(cost_tokens(logits, wanted), expected, rtol=1e-12)


def test_memory_does_not_grow_with_the_rows():
    logits, wanted = np.zeros((1000, 50_000), np.float32), np.zeros(1000, np.int64)
    tracemalloc.start()
    cost_tokens(logits, wanted)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6 < logits.nbytes
