"""Feeds of one graph for another of the same model."""

import numpy as np
import pytest

from exporter.candidates.cast_session import CastSession
from runtimes.errors import DataError, UsageError
from runtimes.ort import OnnxRuntime
from runtimes.protocol import Session
from tests.contract import tiny_models


@pytest.fixture
def session(tmp_path):
    return OnnxRuntime().open(OnnxRuntime().build(tiny_models.write_onnx(tmp_path), tmp_path / "built.onnx"))


def test_feeds_are_converted_and_answers_stay(session):
    cast = CastSession(session)
    assert isinstance(cast, Session)
    assert (cast.inputs, cast.outputs, cast.thread_safe) == (session.inputs, session.outputs, session.thread_safe)
    feeds = {name: np.ones((2, 4), np.float32) for name in (spec.name for spec in session.inputs)}
    narrow = {name: array.astype(np.float16) for name, array in feeds.items()}
    wanted = session.run(feeds)
    for name, array in cast.run(narrow).items():
        np.testing.assert_array_equal(array, wanted[name])
    cast.prepare(narrow)()
    with pytest.raises(DataError, match="dtype"):
        session.run(narrow)


def test_what_is_unknown_is_refused_as_ever(session):
    with pytest.raises(DataError, match="unknown: other"):
        CastSession(session).run({"other": np.ones(2, np.float32)})


def test_it_closes_what_is_within(session):
    CastSession(session).close()
    with pytest.raises(UsageError, match="closed"):
        session.run({})
