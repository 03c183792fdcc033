"""Perplexity over labelled positions: what is labelled, and the number, against scipy-free arithmetic by hand."""

import json
import math

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from exporter.judging.evaluate import EvalData, Evaluated
from exporter.judging.perplexity import measure_perplexity
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.feeds import make_step
from runtimes.ort import OnnxRuntime, describe_onnx
from tests.unit.runtimes.generation.tiny_decoder import CACHE, write_export

WORDS = ["[PAD]", "[UNK]", "[MASK]", "red", "green", "blue", "<s>"]
IDS = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
MASK = TensorSpec(name="attention_mask", dtype="int64", shape=("batch", "sequence"))


class Told:
    """A session whose logits are those of ``answer``; what it was fed is kept."""

    inputs = (IDS, MASK)
    outputs = ()

    def __init__(self, answer):
        self.answer, self.fed = answer, []

    def run(self, feeds):
        self.fed.append(feeds)
        return {"logits": self.answer(feeds["input_ids"])}


def ignore(count):
    """Tell nobody."""


def say_nothing(ids):
    return np.zeros((*ids.shape, len(WORDS)), np.float32)


def expect_next_word(ids):
    """Sure that after red comes green, after green blue, after blue red."""
    told = say_nothing(ids)
    for now, then in ((3, 4), (4, 5), (5, 3)):
        told[ids == now, then] = 50.0
    return told


def write_tokenizer(path, *, with_mask):
    words = [word if with_mask or word != "[MASK]" else "other" for word in WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
    return path


def write_texts(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return EvalData(spec=str(path))


def evaluate(answer, tokenizer, data):
    session = Told(answer)
    return measure_perplexity(Evaluated(session=session, tokenizer=tokenizer), data, ignore), session


TEXTS = ["red green blue red green", "green blue", "blue red green blue red green blue"]


def test_of_a_model_that_knows_nothing_it_is_the_vocabulary(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", with_mask=False)
    found, _ = evaluate(say_nothing, tokenizer, write_texts(tmp_path / "t.jsonl", TEXTS))
    assert (found.metric, found.samples) == ("perplexity", 3)
    assert found.value == pytest.approx(len(WORDS))


def test_rows_that_fill_up_a_fixed_batch_count_for_nothing(tmp_path):
    def fill_up(ids):
        told = expect_next_word(ids)
        return np.concatenate([told, np.full((8 - len(told), *told.shape[1:]), np.nan, np.float32)])

    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", with_mask=False)
    found, _ = evaluate(fill_up, tokenizer, write_texts(tmp_path / "t.jsonl", ["red green blue", "blue red"]))
    assert found.value == pytest.approx(1.0)


def test_of_a_model_that_is_always_right_it_is_one(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", with_mask=False)
    found, session = evaluate(expect_next_word, tokenizer, write_texts(tmp_path / "t.jsonl", TEXTS))
    assert found.value == pytest.approx(1.0)
    assert not any((feeds["input_ids"] == 2).any() for feeds in session.fed)


def test_where_the_tokenizer_has_a_mask_some_words_are_hidden_and_the_same_ones_again(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", with_mask=True)
    data = write_texts(tmp_path / "t.jsonl", [f"<s> {'red green blue ' * count}" for count in range(1, 30)])
    found, first = evaluate(say_nothing, tokenizer, data)
    again, second = evaluate(say_nothing, tokenizer, data)
    assert found == again
    assert found.value == pytest.approx(len(WORDS))
    hidden = sum(int((feeds["input_ids"] == 2).sum()) for feeds in first.fed)
    words = sum(int((feeds["attention_mask"] == 1).sum()) for feeds in first.fed)
    assert 0.08 < hidden / words < 0.22
    assert all((feeds["input_ids"][:, 0] == 6).all() for feeds in first.fed)
    for one, other in zip(first.fed, second.fed, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def open_decoder(folder):
    return OnnxRuntime().open(describe_onnx(write_export(folder) / "model.onnx"))


def lose(session, ids):
    """Sum what each next token costs a decoder, each from the whole text before it."""
    losses = []
    for place in range(1, len(ids)):
        before = np.array([ids[:place]])
        logits = session.run(make_step(before, np.ones_like(before), CACHE.empty(1)))["logits"][0, -1].astype(float)
        losses.append(math.log(np.exp(logits).sum()) - logits[ids[place]])
    return losses


def test_a_decoder_tells_each_token_from_those_before_it(tmp_path):
    session = open_decoder(tmp_path)
    texts = ["Hello", "a", "the quick brown fox"]
    model = Evaluated(session=session, tokenizer=tmp_path / "tokenizer.json")
    found = measure_perplexity(model, write_texts(tmp_path / "t.jsonl", texts), ignore)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    losses = [loss for text in texts for loss in lose(session, tokenizer.encode(text).ids)]
    assert found.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_a_mask_among_the_tokens_of_a_decoder_hides_nothing(tmp_path):
    session = open_decoder(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    data, model = write_texts(tmp_path / "t.jsonl", TEXTS), Evaluated(session=session, tokenizer=tmp_path / "with.json")
    tokenizer.save(str(model.tokenizer))
    before = measure_perplexity(model, data, ignore)
    model.tokenizer.write_text(model.tokenizer.read_text().replace("<pad>", "<mask>"))
    assert measure_perplexity(model, data, ignore) == before


def test_arrays_of_a_decoder_need_no_cache(tmp_path):
    session, ids = open_decoder(tmp_path), np.array([[9, 8, 7, 6], [5, 4, 3, 0]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    labels = np.full_like(ids, -100)
    labels[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], -100)
    np.savez(tmp_path / "t.npz", input_ids=ids, attention_mask=mask, labels=labels)
    found = measure_perplexity(
        Evaluated(session=session, tokenizer=None), EvalData(spec=str(tmp_path / "t.npz")), ignore
    )
    losses = lose(session, [9, 8, 7, 6]) + lose(session, [5, 4, 3])
    assert found.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_arrays_bring_their_labels(tmp_path):
    ids = np.array([[3, 4, 5], [5, 3, 0]])
    labels = np.array([[4, -100, 3], [3, -100, -100]])
    np.savez(tmp_path / "t.npz", input_ids=ids, attention_mask=(ids > 0).astype(np.int64), labels=labels)
    found, _ = evaluate(expect_next_word, None, EvalData(spec=str(tmp_path / "t.npz")))
    assert found.value == pytest.approx(1.0)
    labels[0, 0] = 5
    np.savez(tmp_path / "t.npz", input_ids=ids, attention_mask=(ids > 0).astype(np.int64), labels=labels)
    wrong, _ = evaluate(expect_next_word, None, EvalData(spec=str(tmp_path / "t.npz")))
    assert wrong.value == pytest.approx(math.exp(50 / 3), rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((1, 3), -100), "no token of the data"),
        (np.array([1]), "no token at every position"),
        (np.array([[1, 2, 99]]), "label 99"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, labels, message):
    ids = np.array([[3, 4, 5]])
    np.savez(tmp_path / "t.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=labels)
    with pytest.raises(DataError, match=message):
        evaluate(say_nothing, None, EvalData(spec=str(tmp_path / "t.npz")))


def test_a_classifier_has_no_perplexity(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", with_mask=False)
    with pytest.raises(UnsupportedModel, match="every token"):
        evaluate(lambda ids: np.zeros((len(ids), 3), np.float32), tokenizer, write_texts(tmp_path / "t.jsonl", TEXTS))
