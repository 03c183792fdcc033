"""A decoder's cache on a stand-in of a GPU: what stays there, what is copied, and what is refused.

The stand-in puts the tokens themselves into the cache, so that what is in it can be read.
"""

import numpy as np
import pytest

from runtimes.errors import DataError, UnsupportedModel, UsageError
from runtimes.trt.build import build_plan
from runtimes.trt.decoder import TrtDecoder
from runtimes.trt.options import BuildOptions, TrtOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.runtime import TensorRt
from tests.stand_ins.machine import make_machine, write_copy, write_decoder

PROFILE = parse_profile("min=1x1,opt=1x8,max=1x64")
KEY = "present.0.key"
CARRIED = {f"past_key_values.0.{kind}": f"present.0.{kind}" for kind in ("key", "value")}


@pytest.fixture
def machine(monkeypatch):
    return make_machine("rtx", monkeypatch)


@pytest.fixture
def session(machine, tmp_path):
    plan = build_plan(
        machine.library, write_decoder(tmp_path / "m.onnx"), tmp_path / "m.plan", BuildOptions(profiles=(PROFILE,))
    )
    session = TensorRt(TrtOptions()).open(plan)
    yield session
    session.close()
    assert not machine.gpu.left()


def tokens(*ids):
    return np.array([ids], np.int64)


def find_context(machine):
    return machine.module.seen_engines[-1].seen_contexts[-1]


def read_cache(machine):
    return np.frombuffer(find_context(machine).seen_bytes(KEY), np.int64).tolist()


def test_the_cache_grows_on_the_gpu(machine, session):
    decoder = TrtDecoder(session)
    np.testing.assert_array_equal(decoder.start(tokens(5, 6, 7), np.ones((1, 3), np.int64)), tokens(5, 6, 7))
    for number in range(40):
        np.testing.assert_array_equal(decoder.step(tokens(100 + number)), tokens(100 + number))
    assert read_cache(machine) == [5, 6, 7, *range(100, 140)]
    assert find_context(machine).seen_profiles == [1]  # a prompt first, then nothing but steps


def test_no_cache_is_copied(machine, session, monkeypatch):
    """Past tokens never leave the GPU: what is copied of a step does not grow with what was before."""
    decoder, copied = TrtDecoder(session), []
    decoder.start(tokens(*range(30)), np.ones((1, 30), np.int64))
    whole = machine.gpu._copy
    monkeypatch.setattr(machine.gpu, "_copy", lambda *call: copied.append(call[3]) or whole(*call))
    decoder.step(tokens(7))
    # A token, its position, the mask of 31, and its answer.
    assert sorted(copied) == [8, 8, 8, 31 * 8]


def test_memory_moves_only_when_it_doubles(machine, session):
    decoder = TrtDecoder(session)
    decoder.start(tokens(1, 2), np.ones((1, 2), np.int64))
    places = {(decoder.step(tokens(3)) is None) or find_context(machine)._places[KEY] for _ in range(60)}
    assert len(places) <= 12


def test_a_new_text_forgets_the_last(machine, session):
    decoder = TrtDecoder(session)
    for first in (5, 9):
        decoder.start(tokens(first, 6), np.ones((1, 2), np.int64))
        decoder.step(tokens(1))
    assert read_cache(machine) == [9, 6, 1]


def test_what_no_profile_holds_is_refused_and_ends_the_text(session):
    decoder = TrtDecoder(session)
    decoder.start(tokens(*range(64)), np.ones((1, 64), np.int64))
    with pytest.raises(DataError, match="the plan does not take"):
        decoder.step(tokens(1))
    with pytest.raises(DataError, match="no text was started"):
        decoder.step(tokens(1))


def test_nothing_to_go_on_from(session):
    with pytest.raises(DataError, match="no text was started"):
        TrtDecoder(session).step(tokens(1))
    feeds = {name: tokens(1) for name in ("input_ids", "position_ids", "attention_mask")}
    with pytest.raises(UsageError, match="nothing was run"):
        session.run_kept(feeds, CARRIED)


def test_a_mask_of_another_batch_is_refused(session):
    decoder = TrtDecoder(session)
    with pytest.raises(DataError, match=r"axis .batch."):
        decoder.start(tokens(1, 2), np.ones((2, 2), np.int64))


def test_a_run_that_was_prepared_ends_where_the_cache_goes_on(session):
    decoder = TrtDecoder(session)
    empty = {name: np.zeros((1, 1, 0, 1), np.int64) for name in CARRIED}
    ones = tokens(1)
    call = session.prepare({"input_ids": ones, "position_ids": ones, "attention_mask": ones, **empty})
    decoder.start(tokens(1, 2), np.ones((1, 2), np.int64))
    decoder.step(tokens(3))
    with pytest.raises(UsageError, match="prepare it again"):
        call()


def test_a_plan_without_a_cache_is_no_decoder(machine, tmp_path):
    options = BuildOptions(profiles=(parse_profile("min=1x1,opt=1x1,max=2x1"),))
    plan = build_plan(machine.library, write_copy(tmp_path / "m.onnx"), tmp_path / "m.plan", options)
    with pytest.raises(UnsupportedModel, match="keeps no cache"):
        TrtDecoder(TensorRt(TrtOptions()).open(plan))
