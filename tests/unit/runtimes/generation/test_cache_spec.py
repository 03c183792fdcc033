"""A cache is told by names and shapes, and what a step is fed follows from what is padding."""

import numpy as np
import pytest

from runtimes.artifact import TensorSpec
from runtimes.generation.cache_spec import CacheSpec, find_cache
from runtimes.generation.feeds import blank_padding, carry_cache, make_step, place_tokens

CACHE = CacheSpec(layers=2, kv_heads=3, head_dim=4)


def describe(name, shape, dtype="float32"):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def list_inputs(heads=3, width=4):
    past = [describe(name, ("batch", heads, "past", width)) for name, _ in CACHE.names()]
    return [describe("input_ids", ("batch", "sequence"), "int64"), *past]


def test_names_are_those_of_the_library_that_generates():
    assert CACHE.names()[:3] == (
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.value", "present.0.value"),
        ("past_key_values.1.key", "present.1.key"),
    )
    assert len(CACHE.names()) == 4


def test_the_cache_is_found_among_inputs():
    assert find_cache(list_inputs()) == CACHE


@pytest.mark.parametrize("inputs", [list_inputs()[:1], [], list_inputs(heads="heads"), list_inputs(width="width")])
def test_what_has_no_cache_of_fixed_heads_has_none(inputs):
    assert find_cache(inputs) is None


def test_an_empty_cache_has_no_tokens_and_a_full_one_its_bytes():
    empty = CACHE.empty(2)
    assert {array.shape for array in empty.values()} == {(2, 3, 0, 4)}
    assert {array.dtype for array in empty.values()} == {np.dtype("float32")}
    assert CACHE.bytes_for(2, 10) == 2 * 2 * 2 * 3 * 10 * 4 * 4


def test_positions_count_from_the_first_token_that_is_no_padding():
    mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1]], np.int64)
    assert place_tokens(mask).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    feeds = make_step(np.array([[7], [8]], np.int64), mask, CACHE.empty(2))
    assert feeds["position_ids"].tolist() == [[3], [1]]
    assert feeds["attention_mask"] is mask
    assert set(feeds) == {"input_ids", "attention_mask", "position_ids", *(name for name, _ in CACHE.names())}


def test_outputs_become_the_next_inputs():
    outputs = {name: np.full((1, 3, 1, 4), place, np.float32) for place, (_, name) in enumerate(CACHE.names())}
    carried = carry_cache(CACHE, {**outputs, "logits": np.zeros((1, 1, 5), np.float32)})
    assert [carried[name][0, 0, 0, 0] for name, _ in CACHE.names()] == [0, 1, 2, 3]


def test_padding_is_blanked_in_logits_and_in_the_cache():
    feeds = make_step(np.zeros((1, 2), np.int64), np.array([[0, 1, 0, 1]], np.int64), CACHE.empty(1))
    outputs = {name: np.ones((1, 3, 4, 4), np.float32) for _, name in CACHE.names()}
    blanked = blank_padding(CACHE, feeds, {**outputs, "logits": np.ones((1, 2, 5), np.float32)})
    assert blanked["logits"][0, :, 0].tolist() == [0, 1]
    assert blanked["present.1.value"][0, 2, :, 3].tolist() == [0, 1, 0, 1]
