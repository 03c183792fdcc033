"""Tokens from a decoder's graph alone: behind a cache and without, alone and in a padded batch."""

import numpy as np
import pytest

from bench.generation.decoding import continue_rows, pad_left, predict_rows
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from tests.unit.runtimes.generation.tiny_decoder import CACHE, reference, write_export

ROWS = [[5, 9, 200], [7], [30, 31, 32, 33, 34, 35, 36]]
COUNT = 6


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def session(directory):
    opened = OnnxRuntime(OrtOptions(threads=1)).open(describe_onnx(directory / "model.onnx"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def expected(directory):
    return [reference(directory, row, COUNT, stop=-1) for row in ROWS]


def test_one_row_and_a_batch_say_what_whole_sequences_say(session, expected):
    assert [continue_rows(session, CACHE, [row], COUNT)[0] for row in ROWS] == expected
    assert continue_rows(session, CACHE, ROWS, COUNT) == expected


def test_without_a_cache_the_same_is_predicted_behind_every_beginning(session, expected):
    assert predict_rows(session, CACHE, ROWS, expected) == expected
    wrong = [[(token + 1) % 50 for token in row] for row in expected]
    assert predict_rows(session, CACHE, ROWS, wrong) != wrong


def test_padding_stands_before_the_shorter_rows():
    ids, mask = pad_left([[1, 2, 3], [4]])
    np.testing.assert_array_equal(ids, [[1, 2, 3], [0, 0, 4]])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [0, 0, 1]])
