import numpy as np
import pytest

from exporter.options import DEFAULT_SHAPES
from exporter.probe_feeds import find_contexts, fit_shapes, make_feeds, make_step_feeds, usable_shapes
from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError

IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
MASK = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "sequence"))
IMAGE = TensorSpec(name="image", dtype="float32", shape=("batch", 3, 8, 8))
FIXED = TensorSpec(name="image", dtype="float32", shape=(2, 3, 8, 8))


def test_text_feeds_have_the_shape_and_nothing_padded():
    feeds = make_feeds((IDS, MASK), (4, 16), vocabulary=50, seed=0)
    assert feeds["input_ids"].shape == (4, 16)
    assert feeds["input_ids"].min() >= 0
    assert feeds["input_ids"].max() < 50
    assert np.all(feeds["attention_mask"] == 1)


def test_the_same_seed_gives_the_same_feeds():
    first, second = (make_feeds((IMAGE,), (2, 1), vocabulary=2, seed=7)["image"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.shape == (2, 3, 8, 8)


def test_without_a_sequence_only_the_batch_counts():
    assert usable_shapes((IMAGE,), ((1, 16), (1, 128), (8, 128))) == ((1, 1), (8, 1))
    assert usable_shapes((FIXED,), ((1, 16),)) == ((2, 1),)
    assert usable_shapes((IDS, MASK), ((1, 16), (1, 16))) == ((1, 16),)


def test_a_fixed_batch_is_timed_at_its_own_size():
    single = TensorSpec(name="input_ids", dtype="int64", shape=(1, "sequence"))
    shapes = usable_shapes((single,), ((1, 16), (1, 128), (8, 128)))
    assert shapes == ((1, 16), (1, 128))
    assert all(make_feeds((single,), shape, vocabulary=2, seed=0)["input_ids"].shape == shape for shape in shapes)


def test_a_fixed_batch_cannot_be_changed():
    with pytest.raises(UsageError, match="batch is fixed to 2"):
        make_feeds((FIXED,), (3, 1), vocabulary=2, seed=0)


@pytest.mark.parametrize(
    ("longest", "expected"),
    [(None, DEFAULT_SHAPES), (512, DEFAULT_SHAPES), (64, ((1, 16), (1, 64), (8, 64))), (16, ((1, 16), (8, 16)))],
)
def test_usual_shapes_are_no_longer_than_the_model_takes(longest, expected):
    assert fit_shapes(DEFAULT_SHAPES, longest) == expected


def test_a_longer_shape_that_was_asked_for_is_refused():
    assert fit_shapes(((2, 64),), 64) == ((2, 64),)
    with pytest.raises(UsageError, match="at most 64 tokens") as refused:
        fit_shapes(((2, 32), (4, 128)), 64)
    assert (refused.value.where, refused.value.cure) == ("--shape 4x128", "give at most 4x64")


CACHED = (
    IDS,
    TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "total")),
    TensorSpec(name="position_ids", dtype="int64", shape=("batch", "sequence")),
    TensorSpec(name="past_key_values.0.key", dtype="float32", shape=("batch", 2, "past", 4)),
    TensorSpec(name="past_key_values.0.value", dtype="float32", shape=("batch", 2, "past", 4)),
)


def test_a_prompt_has_an_empty_cache_and_counted_positions():
    feeds = make_feeds(CACHED, (2, 3), vocabulary=9, seed=0)
    assert feeds["past_key_values.0.key"].shape == (2, 2, 0, 4)
    assert feeds["attention_mask"].shape == (2, 3)
    assert feeds["position_ids"].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_step_stands_behind_its_cache():
    feeds = make_step_feeds(CACHED, 5, vocabulary=9, seed=0)
    assert feeds["input_ids"].shape == (1, 1)
    assert feeds["past_key_values.0.value"].shape == (1, 2, 5, 4)
    assert feeds["attention_mask"].tolist() == [[1] * 6]
    assert feeds["position_ids"].tolist() == [[5]]


def test_contexts_fit_the_model_and_only_decoders_have_any():
    assert find_contexts((IDS, MASK), 512) == ()
    assert find_contexts(CACHED, None) == (128, 1024)
    assert find_contexts(CACHED, 512) == (128, 511)
    assert find_contexts(CACHED, 64) == (63,)
