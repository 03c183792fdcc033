"""Embeddings, cosine and Spearman against scipy and by hand."""

import json

import numpy as np
import pytest

from bench.measuring.quality import (
    Pair,
    compare_embeddings,
    correlate_ranks,
    embed_texts,
    embed_tokens,
    read_pairs,
    score_pairs,
)
from bench.subjects.texts import encode_texts, make_feeds, open_tokenizer, select_feeds
from runtimes.artifact import TensorSpec
from runtimes.errors import BudgetMissed, DataError, UnsupportedModel

tokenizers = pytest.importorskip("tokenizers")
WORDS = ["[PAD]", "[UNK]", "cat", "dog", "car", "the", "a"]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def tokenizer(tokenizer_file):
    return open_tokenizer(tokenizer_file, max_length=4)


class Lookup:
    """A session whose token vectors are one-hot over the words, padding included: only masking can leave it out."""

    def __init__(self, output="last_hidden_state", more=()):
        self.inputs = tuple(
            TensorSpec(name=name, dtype="int64", shape=("b", "s")) for name in ("input_ids", "attention_mask")
        )
        self.outputs = (TensorSpec(name=output, dtype="float32", shape=("b", "s", 7)), *more)
        self.batches = []

    def run(self, feeds):
        assert feeds.keys() == {"input_ids", "attention_mask"}
        self.batches.append(len(feeds["input_ids"]))
        return {self.outputs[0].name: np.eye(len(WORDS), dtype=np.float32)[feeds["input_ids"]]}


def test_texts_are_cut_and_padded(tokenizer):
    feeds = encode_texts(tokenizer, ["the cat", "the dog a car the"])
    assert feeds["input_ids"].tolist() == [[5, 2, 0, 0], [5, 3, 6, 4]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert all(value.dtype == np.int64 for value in feeds.values())


def test_made_feeds_have_the_shape_and_repeat(tokenizer):
    feeds = make_feeds(tokenizer, 3, 9)
    assert {value.shape for value in feeds.values()} == {(3, 9)}
    assert feeds["input_ids"].max() < len(WORDS)
    np.testing.assert_array_equal(feeds["input_ids"], make_feeds(tokenizer, 3, 9)["input_ids"])


def test_models_get_the_inputs_they_take(tokenizer):
    feeds = make_feeds(tokenizer, 1, 2)
    assert select_feeds(Lookup().inputs, feeds).keys() == {"input_ids", "attention_mask"}
    with pytest.raises(DataError, match="pixel_values"):
        select_feeds((TensorSpec(name="pixel_values", dtype="float32", shape=()),), feeds)


def test_embeddings_are_masked_means_of_unit_length(tokenizer):
    vectors = embed_texts(Lookup(), tokenizer, ["cat", "cat dog", "cat dog car the"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0].tolist() == np.eye(7)[2].tolist()
    assert vectors[1][0] == 0  # padding has no part
    np.testing.assert_allclose(vectors[1][[2, 3]], np.sqrt([0.5, 0.5]))


def test_every_token_that_is_not_padding_has_a_unit_vector(tokenizer):
    vectors = embed_tokens(Lookup(), tokenizer, ["cat", "the dog car"] * 5)
    assert vectors.shape == (20, 7)
    assert vectors[:4].argmax(axis=1).tolist() == [2, 5, 3, 4]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


@pytest.mark.parametrize("embed", [embed_texts, embed_tokens])
def test_a_model_that_overflows_is_named_and_not_averaged(tokenizer, embed):
    class Overflowing(Lookup):
        def run(self, feeds):
            return {name: value / np.float32(1e-40) for name, value in super().run(feeds).items()}

    with np.errstate(over="ignore"), pytest.raises(BudgetMissed, match="NaN or infinity"):
        embed(Overflowing(), tokenizer, ["cat"])


def test_many_texts_go_in_batches_of_eight_in_order(tokenizer):
    session = Lookup()
    vectors = embed_texts(session, tokenizer, ["cat", "dog"] * 10)
    assert session.batches == [8, 8, 4]
    assert vectors[:, 2].tolist() == [1, 0] * 10


def test_the_token_output_is_found_or_the_model_refused(tokenizer):
    assert embed_texts(Lookup(output="tokens"), tokenizer, ["cat"]).shape == (1, 7)
    pooled = TensorSpec(name="pooled", dtype="float32", shape=("b", 7))
    with pytest.raises(UnsupportedModel, match="tokens, pooled"):
        embed_texts(Lookup(output="tokens", more=(pooled,)), tokenizer, ["cat"])


def test_agreement_is_mean_and_minimum():
    reference = np.eye(2)
    agreement = compare_embeddings(reference, np.array([[1.0, 0.0], [0.6, 0.8]]))
    assert agreement.mean == pytest.approx(0.9)
    assert agreement.minimum == pytest.approx(0.8)


def test_pairs_are_scored_by_rank(tokenizer, tmp_path):
    pairs = [("the cat", "the cat", 9.0), ("the cat", "the dog", 5.0), ("the cat", "a car", 1.0)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"text_a": a, "text_b": b, "score": s}) + "\n" for a, b, s in pairs))
    read = read_pairs(path)
    assert read[0] == Pair(text_a="the cat", text_b="the cat", score=9.0)
    assert score_pairs(Lookup(), tokenizer, read) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_scipys_with_ties(seed):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 6, 40).astype(float), rng.integers(0, 9, 40).astype(float)
    assert correlate_ranks(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)


def test_spearman_refuses_what_has_no_rank():
    with pytest.raises(DataError, match="all alike"):
        correlate_ranks(np.ones(3), np.arange(3.0))
    with pytest.raises(DataError, match="1 with 1"):
        correlate_ranks(np.ones(1), np.ones(1))
    with pytest.raises(DataError, match="3 with 2"):
        correlate_ranks(np.ones(3), np.ones(2))
