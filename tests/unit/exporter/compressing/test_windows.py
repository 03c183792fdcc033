"""Texts become windows of one length, an end behind each text; a teacher must have the pieces."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from exporter.compressing.data import Texts
from exporter.compressing.windows import name_end, read_windows
from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, DataError, UsageError

INPUTS = tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in ("input_ids", "mask"))[:1]
WORDS = ("<end>", "a", "b", "c", "d")


def write(folder, words=WORDS):
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([words[0]])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def texts(*rows):
    return {"train": Texts(rows=tuple((row,) for row in rows), labels=None, where="train.txt")}


def read(folder, *rows, length=4, end="<end>", teacher=None):
    return read_windows(texts(*rows), length, INPUTS, end, teacher, folder)[0].train


def list_ids(samples):
    return [row["input_ids"].tolist() for row in samples.rows]


def test_texts_follow_each_other_with_an_end_between(tmp_path):
    write(tmp_path)
    samples = read(tmp_path, "a b c", "d", "a b")
    assert list_ids(samples) == [[1, 2, 3, 0], [4, 0, 1, 2]]
    assert all(row["attention_mask"].all() for row in samples.rows)
    assert list_ids(read(tmp_path, "a b c", "d", "a b", end=None)) == [[1, 2, 3, 4], [1, 2]]
    assert samples.teacher_ids is None


def test_a_long_text_is_cut_and_not_cut_off(tmp_path):
    write(tmp_path)
    assert len(read(tmp_path, " ".join("abcd" * 50), length=8)) == 25


def test_no_texts_are_no_samples(tmp_path):
    assert read_windows({}, 4, INPUTS, None, None, tmp_path)[0].train is None


def test_a_single_token_is_no_text(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match="no two tokens in the data") as caught:
        read(tmp_path, "a", end=None)
    assert caught.value.where == "train.txt"


def test_texts_need_a_tokenizer(tmp_path):
    with pytest.raises(DataError, match="texts need a tokenizer"):
        read(tmp_path, "a b")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptArtifact, match="not a tokenizer"):
        read(tmp_path, "a b")


def test_the_same_tokenizer_needs_no_translation(tmp_path):
    write(tmp_path)
    assert read(tmp_path, "a b", teacher=write(tmp_path / "teacher")).teacher_ids is None


def test_a_teacher_with_more_pieces_calls_them_by_its_own_ids(tmp_path):
    write(tmp_path)
    teacher = write(tmp_path / "teacher", ("<end>", "x", "d", "c", "b", "a"))
    samples = read(tmp_path, "a b c", teacher=teacher)
    assert samples.teacher_ids.tolist() == [0, 5, 4, 3, 2]
    batch = samples.collate((0,))
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 0]]
    assert batch.teacher_inputs["input_ids"].tolist() == [[5, 4, 3, 0]]
    assert np.array_equal(samples.subset([0]).teacher_ids, samples.teacher_ids)


def test_a_teacher_without_a_piece_is_refused(tmp_path):
    write(tmp_path)
    teacher = write(tmp_path / "teacher", WORDS[:-1])
    with pytest.raises(UsageError, match="the teacher's tokenizer has no piece 'd'"):
        read(tmp_path, "a b", teacher=teacher)


def test_the_end_is_named_by_its_id(tmp_path):
    assert name_end(write(tmp_path), 0) == "<end>"
    assert name_end(tmp_path / "tokenizer.json", None) is None
    assert name_end(tmp_path / "none.json", 0) is None
