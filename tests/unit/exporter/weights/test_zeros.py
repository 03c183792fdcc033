"""What zeros look like: every pattern from a weight made to have it."""

import tracemalloc

import numpy as np
import pytest

from exporter.weights.zeros import describe_sparsity


def make(outputs: int = 64, inputs: int = 64) -> np.ndarray:
    return np.ones((outputs, inputs), bool)


def test_no_zeros_is_dense():
    found = describe_sparsity(make())
    assert (found.zeros, found.pattern, found.use) == (0.0, "dense", "none")


def test_the_zeros_that_rounding_makes_are_no_pattern():
    nonzero = make()
    nonzero[::8, ::4] = False
    assert describe_sparsity(nonzero).pattern == "dense"


def make_two_of_four(outputs: int = 64, inputs: int = 64) -> np.ndarray:
    order = np.random.default_rng(0).random((outputs, inputs // 4, 4)).argsort(axis=2)
    return (order < 2).reshape(outputs, inputs)


def test_two_of_four():
    found = describe_sparsity(make_two_of_four())
    assert (found.pattern, found.use, found.zeros) == ("2:4", "GPU 2:4", 0.5)


def test_two_of_four_is_along_the_inputs():
    assert describe_sparsity(make_two_of_four().T).pattern == "unstructured"


def test_two_of_four_with_odd_inputs_has_no_use():
    found = describe_sparsity(make_two_of_four(inputs=20))
    assert found.pattern == "2:4"
    assert found.use.startswith("none")


def test_columns_that_fit_two_of_four_serve_both():
    nonzero = make()
    nonzero[:, 1::4] = nonzero[:, 2::4] = False
    found = describe_sparsity(nonzero)
    assert (found.pattern, found.use) == ("2:4", "GPU 2:4 or CPU sparse kernels, 16x1")


def test_whole_rows():
    nonzero = make()
    nonzero[:16] = False
    assert describe_sparsity(nonzero).pattern == "rows"


@pytest.mark.parametrize(
    "block", [(32, 32), (16, 16), (8, 8), (4, 4), (16, 4), (16, 1), (8, 1), (4, 1), (1, 4)], ids=str
)
def test_the_largest_block_that_explains_the_zeros(block):
    kept = np.random.default_rng(1).random((256 // block[0], 256 // block[1])) < 0.2
    nonzero = np.kron(kept, np.ones(block, bool))
    assert describe_sparsity(nonzero).pattern == f"block {block[0]}x{block[1]}"


def test_blocks_are_outputs_by_inputs():
    kept = np.kron(np.random.default_rng(1).random((16, 64)) < 0.2, np.ones((4, 1), bool))
    assert describe_sparsity(kept).pattern == "block 4x1"
    assert describe_sparsity(kept.T).pattern == "block 1x4"


def test_a_block_at_the_edge_may_be_cut():
    kept = np.kron(np.random.default_rng(1).random((17, 66)) < 0.2, np.ones((16, 1), bool))
    assert describe_sparsity(kept[:260]).pattern == "block 16x1"


@pytest.mark.parametrize(
    ("fraction", "use"), [(0.4, "none: 1x1 pays from 55% zeros"), (0.8, "CPU sparse kernels, 1x1")]
)
def test_unstructured_pays_only_from_a_bound(fraction, use):
    nonzero = np.random.default_rng(0).random((128, 128)) >= fraction
    found = describe_sparsity(nonzero)
    assert (found.pattern, found.use) == ("unstructured", use)
    assert found.zeros == pytest.approx(fraction, abs=0.02)


def test_a_block_pattern_is_stored_in_its_own_block():
    for block in [(16, 1), (16, 4), (4, 4), (8, 1), (4, 1)]:
        kept = np.kron(np.random.default_rng(2).random((256 // block[0], 256 // block[1])) < 0.3, np.ones(block, bool))
        found = describe_sparsity(kept)
        assert found.forms[0].block == block
        assert found.forms[0].density == pytest.approx(1 - found.zeros)
        assert "CPU sparse kernels" in found.use


def test_single_weights_are_stored_singly():
    nonzero = np.random.default_rng(0).random((128, 256)) < 0.1
    best = describe_sparsity(nonzero).forms[0]
    assert best.block == (1, 1)
    assert best.size_bytes(4) / (4 * nonzero.size) == pytest.approx(0.125, abs=0.01)
    assert best.size_bytes(1) / (4 * nonzero.size) == pytest.approx(0.05, abs=0.01)


def test_an_empty_weight():
    assert describe_sparsity(np.ones((0, 4), bool)).zeros == 0.0


def test_where_nothing_pays_the_best_form_is_the_one_that_the_use_names():
    found = describe_sparsity(np.random.default_rng(0).random((64, 64)) < 0.8)
    assert found.use == "none: 1x1 pays from 55% zeros"
    assert found.forms[0].block == (4, 1)
    assert found.best.block == (1, 1)
    assert describe_sparsity(make()).best is None


def test_it_takes_a_few_bytes_for_each_weight():
    nonzero = np.random.default_rng(0).random((8192, 256)) < 0.9
    tracemalloc.start()
    describe_sparsity(nonzero)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * nonzero.size


def test_a_table_that_is_looked_up_is_stored_in_no_form():
    found = describe_sparsity(np.random.default_rng(0).random((64, 64)) < 0.1, multiplied=False)
    assert (found.pattern, found.forms, found.use) == ("unstructured", (), "none")
