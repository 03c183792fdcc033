"""One set of inputs for several subjects."""

import json

import numpy as np
import pytest

from exporter.measuring.feeds import FeedsPlan, count_vocabulary, merge_inputs, write_feeds
from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UsageError
from tests.cli.tiny_artifact import WORDS, write_tokenizer


def spec(name, *shape, dtype="int64"):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


IDS, MASK = spec("input_ids", "batch", "sequence"), spec("attention_mask", "batch", "sequence")
TYPES = spec("token_type_ids", "batch", "sequence")


def test_every_input_of_any_subject_is_there_once():
    assert merge_inputs([(IDS, MASK), (IDS, MASK, TYPES), (IDS,)]) == (IDS, MASK, TYPES)


def test_an_axis_that_one_subject_fixes_is_fixed():
    fixed = spec("input_ids", "batch", 64)
    assert merge_inputs([(IDS,), (fixed,)]) == (fixed,)


def test_other_names_of_the_batch_are_understood(tmp_path):
    foreign = (spec("input_ids", "batch_size", "sequence_length"), spec("attention_mask", "batch_size", "length"))
    written = write_feeds([foreign, (IDS, MASK)], FeedsPlan(shapes=((2, 5),)), tmp_path)
    with np.load(written["2x5"]) as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == {"input_ids": (2, 5), "attention_mask": (2, 5)}


@pytest.mark.parametrize(
    "other",
    [spec("input_ids", "batch", "sequence", dtype="int32"), spec("input_ids", "batch"), spec("input_ids", 1, 9)],
)
def test_subjects_with_different_inputs_are_refused(other):
    with pytest.raises(UsageError, match="another") as caught:
        merge_inputs([(spec("input_ids", 1, 8),), (other,)])
    assert caught.value.where == "input_ids"
    assert "same inputs" in caught.value.cure


def test_ids_stay_below_the_smallest_vocabulary(tmp_path):
    small, large, bare = tmp_path / "small", tmp_path / "large", tmp_path / "bare"
    for folder in (small, large, bare):
        folder.mkdir()
    write_tokenizer(small)
    (large / "config.json").write_text(json.dumps({"vocab_size": 5000}))
    assert count_vocabulary([large, small, bare]) == len(WORDS)
    assert count_vocabulary([large]) == 5000
    assert count_vocabulary([bare]) == 2
    written = write_feeds([(IDS, MASK)], FeedsPlan(shapes=((4, 64),), directories=(small,)), tmp_path)
    with np.load(written["4x64"]) as arrays:
        assert 0 <= arrays["input_ids"].min() < arrays["input_ids"].max() < len(WORDS)
        assert (arrays["attention_mask"] == 1).all()


@pytest.mark.parametrize("content", ["{", "3", "[" * 100_000])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CorruptArtifact, match="configuration cannot be read"):
        count_vocabulary([tmp_path])


def test_the_usual_shapes_are_those_that_the_model_can_tell_apart(tmp_path):
    assert list(write_feeds([(IDS,)], FeedsPlan(), tmp_path)) == ["1x16", "1x128", "8x128"]
    assert list(write_feeds([(spec("x", "batch", 4, dtype="float32"),)], FeedsPlan(), tmp_path)) == ["1x1", "8x1"]


def test_the_same_seed_gives_the_same_values(tmp_path):
    plan = FeedsPlan(shapes=((2, 8),))
    (tmp_path / "again").mkdir()
    first = write_feeds([(IDS,)], plan, tmp_path)
    second = write_feeds([(IDS,)], plan, tmp_path / "again")
    with np.load(first["2x8"]) as one, np.load(second["2x8"]) as two:
        assert (one["input_ids"] == two["input_ids"]).all()


def test_a_shape_that_does_not_fit_a_fixed_batch_is_refused(tmp_path):
    with pytest.raises(UsageError, match="batch is fixed to 1"):
        write_feeds([(spec("x", 1, "sequence"),)], FeedsPlan(shapes=((8, 16),)), tmp_path)
