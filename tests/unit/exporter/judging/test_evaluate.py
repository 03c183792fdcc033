"""Metrics against scipy and by hand; evaluation through sessions whose answers are known."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from exporter.judging.evaluate import (
    EvalData,
    Evaluated,
    accuracy,
    check_metric,
    choose_metric,
    cosine_rows,
    evaluate,
    evaluate_cosine,
    macro_f1,
    spearman,
)
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UnsupportedModel, UsageError

values = st.lists(st.integers(-5, 5), min_size=3, max_size=40).filter(lambda xs: len(set(xs)) > 1)


@given(first=values, seed=st.integers(0, 1000))
def test_spearman_with_ties_is_scipys(first, seed):
    second = np.random.default_rng(seed).permutation(len(first)) // 2
    if len(set(second.tolist())) < 2:
        return
    expected = stats.spearmanr(first, second).statistic
    assert spearman(np.array(first, float), second.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_spearman_of_equal_values_is_an_error():
    with pytest.raises(DataError, match="undefined"):
        spearman(np.ones(4), np.arange(4.0))


def test_accuracy_and_macro_f1_by_hand():
    predicted, expected = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert accuracy(predicted, expected) == pytest.approx(3 / 5)
    # class 0: 2*1/(2+2); class 1: 2*2/(2+3); class 2: never right
    assert macro_f1(predicted, expected) == pytest.approx((0.5 + 0.8 + 0.0) / 3)


def test_cosine_rows_with_zero_rows():
    first, second = np.array([[0.0, 0], [1, 0], [0, 0]]), np.array([[1.0, 0], [1, 1], [0, 0]])
    assert cosine_rows(first, second).tolist() == pytest.approx([0.0, 2**-0.5, 1.0])


def test_metrics_are_known_by_name_and_task():
    check_metric("spearman")
    with pytest.raises(UsageError, match="macro-f1"):
        check_metric("acuracy")
    assert choose_metric("text-classification") == "accuracy"
    with pytest.raises(UsageError, match="--metric"):
        choose_metric("fill-mask")


class Linear:
    """A session that multiplies: what it answers can be computed by hand."""

    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 2)),)
    outputs = (TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),)

    def __init__(self, weight) -> None:
        self.weight = np.array(weight, np.float32)

    def run(self, feeds):
        return {"logits": feeds["x"] @ self.weight}

    def close(self) -> None:
        """Nothing to release."""


IDENTITY = [[1, 0, 0], [0, 1, 0]]


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([[2, 1], [1, 2], [5, 1]], np.float32), label=np.array(["a", "b", "b"]))
    return str(path)


def advance(count: int) -> None:
    assert count > 0


def test_evaluate_accuracy_by_class_names(labelled):
    model = Evaluated(session=Linear(IDENTITY), tokenizer=None, labels=("a", "b", "c"))
    found = evaluate(model, EvalData(spec=labelled), "accuracy", advance)
    assert (found.value, found.samples) == (pytest.approx(2 / 3), 3)


def test_a_label_the_model_lacks_is_named(labelled):
    model = Evaluated(session=Linear(IDENTITY), tokenizer=None, labels=("a", "x", "y"))
    with pytest.raises(DataError, match=r"no class 'b'.*\n.*a, x, y"):
        evaluate(model, EvalData(spec=labelled), "accuracy", advance)


def test_cosine_compares_two_models_sample_by_sample(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([[1, 0], [0, 1]], np.float32))
    one = Evaluated(session=Linear(IDENTITY), tokenizer=None)
    other = Evaluated(session=Linear([[1, 0, 0], [1, 0, 0]]), tokenizer=None)
    assert evaluate_cosine(one, one, EvalData(spec=str(path)), advance).value == pytest.approx(1.0)
    assert evaluate_cosine(one, other, EvalData(spec=str(path)), advance).value == pytest.approx(0.5)


def test_cosine_of_models_of_different_widths_is_an_error(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([[1, 0], [0, 1]], np.float32))
    one, other = (Evaluated(session=Linear(w), tokenizer=None) for w in (IDENTITY, [[1, 0], [0, 1]]))
    with pytest.raises(UnsupportedModel, match="3 numbers a sample, the other 2"):
        evaluate_cosine(one, other, EvalData(spec=str(path)), advance)


class Embedder:
    """A session that gives each token a vector of its own, and a tokenizer to feed it."""

    inputs = (TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence")),)
    outputs = (TensorSpec(name="vectors", dtype="float32", shape=("batch", "sequence", 3)),)
    vectors = np.array([[1, 0, 0], [4, 1, 0], [2, 2, 1], [0, 1, 1], [0, 0, 1]], np.float32)

    def run(self, feeds):
        return {"vectors": self.vectors[feeds["input_ids"]]}

    @classmethod
    def open(cls, folder):
        built = Tokenizer(models.WordLevel({"[CLS]": 0, "a": 1, "b": 2, "c": 3, "d": 4}, unk_token="[CLS]"))
        built.pre_tokenizer = pre_tokenizers.Whitespace()
        built.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
        built.save(str(folder / "tokenizer.json"))
        return Evaluated(session=cls(), tokenizer=folder / "tokenizer.json")


def test_pairs_stay_together_where_one_text_is_blank(tmp_path):
    rows = [("a", "d"), (" ", "d"), ("c", "d"), ("d", ""), ("b", "a"), ("a", "b"), (" ", "")]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"text_a": a, "text_b": b, "score": n}) + "\n" for n, (a, b) in enumerate(rows)))
    found = evaluate(Embedder.open(tmp_path), EvalData(spec=str(path)), "spearman", advance)
    means = [
        [Embedder.vectors[[0, *("abcd".index(word) + 1 for word in text.split())]].mean(axis=0) for text in row]
        for row in rows[:-1]
    ]
    cosines = cosine_rows(*(np.array(side, np.float64) for side in zip(*means, strict=True)))
    assert found.samples == 6
    assert found.value == pytest.approx(spearman(cosines, np.arange(6.0)))


def test_spearman_of_tensors_is_an_error(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32), score=np.arange(9.0))
    with pytest.raises(DataError, match="no pairs of texts"):
        evaluate(Evaluated(session=Linear(IDENTITY), tokenizer=None), EvalData(spec=str(path)), "spearman", advance)


def test_spearman_needs_numbers(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"text_a": "a", "text_b": "b", "score": "high"}) + "\n")
    model = Evaluated(session=Linear(IDENTITY), tokenizer=None)
    with pytest.raises(UsageError):
        evaluate(model, EvalData(spec=str(path)), "spearman", advance)
