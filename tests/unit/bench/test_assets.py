"""The real texts: how many there are, and that none to judge by is among those to fit on."""

import json

import pytest

from bench import assets
from runtimes.errors import MissingDependency


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def movie_sentences():
    try:
        return assets.movie_sentences()
    except MissingDependency as error:
        pytest.skip(error.what)


def test_movie_sentences_are_clear_and_split_one_in_five(movie_sentences):
    train, test = read(movie_sentences.train), read(movie_sentences.test)
    assert (len(train), len(test)) == (8011, 2030)
    for rows in (train, test):
        positive = sum(row["label"] == "positive" for row in rows)
        assert 0.48 < positive / len(rows) < 0.52


def test_no_text_to_judge_by_is_seen_in_training(movie_sentences):
    judged = {row["text"] for row in read(movie_sentences.test)}
    assert not judged & {row["text"] for row in read(movie_sentences.train)}
    assert not judged & {row["text"] for row in read(movie_sentences.unlabelled)}


def test_the_first_texts_are_a_fair_sample(movie_sentences):
    labels = [row["label"] for row in read(movie_sentences.train)[:200]]
    assert 70 < labels.count("positive") < 130


def test_no_paragraph_of_english_is_in_two_files():
    try:
        texts = assets.english()
    except MissingDependency as error:
        pytest.skip(error.what)
    train, held_out, test = (
        set(path.read_text(encoding="utf-8").splitlines()) for path in (texts.train, texts.held_out, texts.test)
    )
    assert len(train) > 13_000
    assert min(len(held_out), len(test)) > 600
    # A heading or an exclamation may well be written twice.
    assert max(map(len, (train & held_out) | (train & test) | (held_out & test)), default=0) < 60


def test_smollm2_is_a_gguf_file():
    try:
        path = assets.smollm2()
    except MissingDependency as error:
        pytest.skip(error.what)
    assert path.suffix == ".gguf"
    with path.open("rb") as stream:
        assert stream.read(4) == b"GGUF"
