"""Ticks of a logarithmic axis: round, inside, few, and apart."""

import math
from itertools import pairwise

import pytest

from bench.report.ticks import pick_ticks

RANGES = [(0.7, 3.4), (4.9, 5.3), (0.98, 1.02), (1.1, 97.0), (0.001, 4000.0), (2.4, 13.1), (1.0, 1.0001)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ticks(low, high):
    ticks = pick_ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)
    span = math.log(high / low)
    assert all(math.log(b / a) > 0.16 * span for a, b in pairwise(ticks))
