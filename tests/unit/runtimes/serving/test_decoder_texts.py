"""Texts for a decoder are padded before their first token, and come with positions and an empty cache."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from runtimes.artifact import TensorSpec
from runtimes.serving.tokenise import Tokeniser

INPUTS = (
    TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),
    TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "total")),
    TensorSpec(name="position_ids", dtype="int64", shape=("batch", "sequence")),
    TensorSpec(name="past_key_values.0.key", dtype="float32", shape=("batch", 2, "past", 4)),
    TensorSpec(name="past_key_values.0.value", dtype="float32", shape=("batch", 2, "past", 4)),
)


@pytest.fixture
def tokeniser(tmp_path):
    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    return Tokeniser(tmp_path / "tokenizer.json", INPUTS, 16)


def test_rows_end_together(tokeniser):
    feeds = tokeniser.stack(tokeniser.encode([("a b c",), ("c",)]))
    assert feeds["input_ids"].tolist() == [[1, 2, 3], [0, 0, 3]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert feeds["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_the_cache_is_empty(tokeniser):
    feeds = tokeniser.stack(tokeniser.encode([("a",), ("b",)]))
    assert set(feeds) == {spec.name for spec in INPUTS}
    assert feeds["past_key_values.0.key"].shape == (2, 2, 0, 4)
    assert feeds["past_key_values.0.key"].dtype == np.float32
