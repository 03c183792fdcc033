"""Samples follow the tokenizer of the step, and the teacher keeps its own."""

import json

import pytest

from exporter.compressing.data import Labels, Texts
from exporter.compressing.reader import HELD_OUT, TRAIN, Reading, find_special_tokens, read_texts_again
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError
from tests.corpus.architectures import write_tokenizer

INPUTS = tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in ("input_ids",))
TEXTS = {
    TRAIN: Texts(rows=(("the boat",), ("heat",)), labels=("b", "a"), where="t:label"),
    HELD_OUT: Texts(rows=(("dawn",),), labels=("a",), where="h:label"),
}
LABELS = Labels(names=("a", "b"))


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path)
    return tmp_path / "tokenizer.json"


def read(folder, *, teacher=None, max_length=16):
    return read_texts_again(TEXTS, max_length, INPUTS, LABELS, teacher, folder)


def test_texts_become_samples(tokenizer):
    sets, tokens = read(tokenizer.parent)
    assert sets.train.labels.tolist() == [1, 0]
    assert sets.unlabelled is None
    vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
    ids = [vocabulary[piece] for piece in ("[CLS]", "the", "boat", "[SEP]")]
    assert sets.train.rows[0]["input_ids"].tolist() == ids
    assert (tokens.padding, tokens.mask) == (vocabulary["[PAD]"], vocabulary["[MASK]"])
    assert set(tokens.every) == {vocabulary[piece] for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}


def test_texts_are_cut_to_the_length(tokenizer):
    sets, _ = read(tokenizer.parent, max_length=3)
    assert len(sets.train.rows[0]["input_ids"]) == 3


def shrink(tokenizer, folder):
    """Write a tokenizer without the words but with their letters."""
    folder.mkdir()
    made = json.loads(tokenizer.read_text())
    words = [word for word in made["model"]["vocab"] if word.strip("#[],.").islower() and len(word.strip("#")) > 1]
    kept = [word for word in made["model"]["vocab"] if word not in words]
    made["model"]["vocab"] = {word: place for place, word in enumerate(kept)}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return folder


def test_the_teacher_reads_its_own_tokens_where_they_differ(tokenizer, tmp_path):
    teacher = Reading(tokenizer=tokenizer, inputs=INPUTS)
    same, _ = read(tokenizer.parent, teacher=teacher)
    assert same.train.teacher_rows is None
    other, _ = read(shrink(tokenizer, tmp_path / "small"), teacher=teacher)
    assert [len(row["input_ids"]) for row in other.train.teacher_rows] == [4, 3]
    assert [len(row["input_ids"]) for row in other.train.rows] == [9, 6]


def test_texts_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(DataError, match="texts need a tokenizer"):
        read(tmp_path)


def test_no_data_needs_no_tokenizer(tmp_path):
    sets, tokens = read_texts_again({}, 16, INPUTS, LABELS, None, tmp_path)
    assert (sets.train, sets.held_out, tokens.mask) == (None, None, None)


def test_marked_tokens_are_special(tokenizer):
    made = json.loads(tokenizer.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] = [{"id": made["model"]["vocab"]["boat"], "content": "boat", **flags}]
    tokenizer.write_text(json.dumps(made))
    assert made["model"]["vocab"]["boat"] in find_special_tokens(tokenizer).every
