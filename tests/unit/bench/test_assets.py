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
