"""What zeros look like: every pattern from a weight made to have it."""

import numpy as np
import pytest

from exporter.sparsity import describe_sparsity


def make(outputs: int = 64, inputs: int = 64) -> np.ndarray:
    return np.ones((outputs, inputs), bool)


def test_no_zeros_is_dense():
    found = describe_sparsity(make())
    assert (found.zeros, found.pattern, found.use) == (0.0, "dense", "none")


def test_the_zeros_that_rounding_makes_are_no_pattern():
    nonzero = make()
    nonzero[::8, ::4] = False
    assert describe_sparsity(nonzero).pattern == "dense"


def test_two_of_four():
    nonzero = make()
    nonzero[:, 1::4] = nonzero[:, 2::4] = False
    found = describe_sparsity(nonzero)
    assert (found.pattern, found.use, found.zeros) == ("2:4", "GPU 2:4", 0.5)


def test_two_of_four_is_along_the_inputs():
    nonzero = make()
    nonzero[:, 1::4] = nonzero[:, 2::4] = False
    assert describe_sparsity(nonzero.T).pattern != "2:4"


def test_two_of_four_with_odd_inputs_has_no_use():
    nonzero = make(inputs=20)
    nonzero[:, 1::4] = nonzero[:, 2::4] = False
    found = describe_sparsity(nonzero)
    assert found.pattern == "2:4"
    assert found.use.startswith("none")


def test_whole_rows():
    nonzero = make()
    nonzero[:16] = False
    assert describe_sparsity(nonzero).pattern == "rows"


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_the_largest_block_that_explains_the_zeros(side):
    blocks = np.zeros((128 // side, 128 // side), bool)
    blocks[::2, 1::2] = blocks[1::2, ::2] = True
    assert describe_sparsity(np.kron(blocks, np.ones((side, side), bool))).pattern == f"block {side}x{side}"


@pytest.mark.parametrize(("fraction", "use"), [(0.4, "none: pays from 60% zeros"), (0.8, "CPU sparse kernels")])
def test_unstructured_pays_only_from_a_bound(fraction, use):
    nonzero = np.random.default_rng(0).random((128, 128)) >= fraction
    found = describe_sparsity(nonzero)
    assert (found.pattern, found.use) == ("unstructured", use)
    assert found.zeros == pytest.approx(fraction, abs=0.02)


def test_an_empty_weight():
    assert describe_sparsity(np.ones((0, 4), bool)).zeros == 0.0
