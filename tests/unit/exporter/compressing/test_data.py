"""The user's labels: classes by name, or scores."""

import numpy as np
import pytest

from exporter.compressing.data import Texts, find_labels, read_arrays, read_texts
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError


def make(labels):
    return Texts(rows=(("a",),) * len(labels), labels=tuple(labels), where="d.jsonl:label")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([10, 9, 2], ("2", "9", "10")),
        (["1", "0"], ("0", "1")),
        ([1, "x"], ("1", "x")),
        ([0.5, 1], ()),
        (["0.5", "-2"], ()),
        ([True, False], ("False", "True")),
        (["1.5", "x"], ("1.5", "x")),
    ],
)
def test_labels_are_classes_unless_one_has_a_fraction(labels, names):
    assert find_labels(make(labels)).names == names


@pytest.mark.parametrize("labels", [["a", "a"], []])
def test_one_label_is_nothing_to_learn(labels):
    with pytest.raises(DataError, match="nothing to learn"):
        find_labels(make(labels))


def test_a_file_that_holds_no_texts_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a kind of data file"):
        read_texts(tmp_path / "x.npz", (), None)


INPUTS = (TensorSpec(name="x", dtype="float32", shape=("batch", 2)),)


@pytest.mark.parametrize(("labels", "dtype"), [(np.array([1, 0, 1], np.int32), np.int64), (np.ones(3), np.float32)])
def test_arrays_are_rows(tmp_path, labels, dtype):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "d.npz", x=values, label=labels)
    samples = read_arrays(tmp_path / "d.npz", INPUTS, None)
    assert samples.labels.dtype == dtype
    assert np.array_equal(np.stack([row["x"] for row in samples.rows]), values)


@pytest.mark.parametrize(
    ("arrays", "label", "message"),
    [
        ({}, "mood", "no array 'mood'"),
        ({"label": np.zeros(2, np.int64)}, None, "2 labels for 3 samples"),
        ({"y": np.zeros(3, np.float32)}, None, "the model takes x"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, label, message):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2), np.float32), **arrays)
    with pytest.raises(DataError, match=message):
        read_arrays(tmp_path / "d.npz", INPUTS, label)
