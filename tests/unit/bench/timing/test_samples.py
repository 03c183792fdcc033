"""What raw samples tell."""

from bench.timing.samples import Samples

ONE = Samples(label="a", ns=((5, 7, 6), (9, 8)), warmup_ns=(50,), machine={"cpu": "x"}, artifact_sha256="ab")


def test_statistics():
    assert ONE.block_medians_ns() == (6.0, 8.5)
    assert ONE.median_ns() == 7.25
    assert ONE.quantile_ns(0.5) == 7
    assert ONE.quantile_ns(0.99) == 9
    assert ONE.quantile_ns(0.2) == 5


def test_a_long_block_counts_as_much_as_a_short_one():
    uneven = Samples(label="a", ns=((1,) * 100, (3,)), warmup_ns=(), machine={})
    assert uneven.median_ns() == 2
