"""What timing opens, it closes, it times what serves, and a sparse candidate beside its dense twin."""

import itertools
import time
from types import SimpleNamespace

import pytest

from bench.timing.samples import Samples
from exporter.candidates import timing
from exporter.candidates.timing import TimingPlan, time_trials
from exporter.candidates.trial import PLAIN
from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError

PLAN = TimingPlan(shapes=((1, 1),), vocabulary=2, seed=0)


class Session:
    """Counts what is asked of it."""

    inputs = ()

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.prepared = self.called = self.closed = 0

    def prepare(self, feeds):
        assert feeds == {}
        self.prepared += 1
        return self.call

    def call(self):
        time.sleep(self.seconds)
        self.called += 1

    def close(self):
        self.closed += 1


def make_trial(name, *, twin=None, objection=""):
    dense = SimpleNamespace(name=twin) if twin is not None else None
    spec = SimpleNamespace(plain=name == PLAIN, dense_twin=dense)
    return SimpleNamespace(name=name, spec=spec, object_to_drop=lambda _: objection)


def time_them(open_trial, *trials):
    return time_trials(
        [make_trial(PLAIN), *(trials or [make_trial("fp16")])], PLAN, open_trial, lambda _: None, max_drop=0.01
    )


@pytest.fixture(autouse=True)
def _briefly(monkeypatch):
    brief = timing.MeasurePlan(blocks=2, block_seconds=0.001, min_runs=1, discard=0, warmup_seconds=0, time_budget_s=1)
    for name in ("SCREENING", "FINAL"):
        monkeypatch.setattr(timing, name, brief)


def test_prepared_calls_are_timed_and_every_session_closed():
    sessions = {}
    found = time_them(lambda trial: sessions.setdefault(trial.name, Session()))
    assert set(found.speeds) == {PLAIN, "fp16"}
    assert all(one.called > one.prepared > 0 and one.closed == 1 for one in sessions.values())


def test_a_session_that_does_not_open_leaves_none_open():
    first = Session()

    def open_trial(trial):
        if trial.name != PLAIN:
            raise UsageError("no memory")
        return first

    with pytest.raises(UsageError, match="no memory"):
        time_them(open_trial)
    assert first.closed == 1


def time_twins(**settings):
    """Time a candidate of 1 ms, its dense twin of 3, and plain float of 4: the twin is too far behind to win."""
    # Far enough apart that a busy machine, where sleeping takes longer, does not change their order.
    seconds = {PLAIN: 24e-3, "sparse": 2e-3, "dense": 8e-3}
    trials = [make_trial("sparse", twin="dense"), make_trial("dense", **settings)]
    return time_them(lambda trial: Session(seconds[trial.name]), *trials)


def test_a_sparse_finalist_is_timed_closely_beside_its_dense_twin():
    found = time_twins()
    assert found.finalists == (PLAIN, "sparse", "dense")
    assert set(found.twins) == {"sparse"}
    assert 1 < found.twins["sparse"]["1x1"].ratio < found.speeds["sparse"]["1x1"].ratio


def test_a_twin_that_misses_the_budget_is_no_twin():
    found = time_twins(objection="drops 9%")
    assert found.finalists == (PLAIN, "sparse")
    assert found.twins == {}


def count_rounds(monkeypatch, *trials):
    """Return how often each shape was gone through, and what was told of progress."""
    measured, told = [], []
    real = timing.measure_interleaved
    monkeypatch.setattr(timing, "measure_interleaved", lambda *a, **k: measured.append(sorted(a[0])) or real(*a, **k))
    time_trials([make_trial(PLAIN), *trials], PLAN, lambda _: Session(), told.append, max_drop=0.01)
    return measured, sum(told)


def test_a_single_candidate_that_may_win_is_timed_closely_at_once(monkeypatch):
    assert count_rounds(monkeypatch, make_trial("fp16")) == ([[PLAIN, "fp16"]], 2)


def test_one_that_misses_the_budget_is_looked_at_for_the_table(monkeypatch):
    measured, told = count_rounds(monkeypatch, make_trial("fp16", objection="drops 9%"))
    assert (measured, told) == ([[PLAIN, "fp16"], [PLAIN]], 2)


def count_until_told(speeds, noise):
    """Return after how many of 20 rounds enough is known of candidates so many times as fast as plain float."""
    wobble = itertools.cycle([1.0, 1.0 + noise, 1.0, 1.0, 1.0 - noise])
    taken = {PLAIN: [], **{name: [] for name in speeds}}
    while len(taken[PLAIN]) < 20:
        for name, blocks in taken.items():
            blocks.append((int(2e6 / speeds.get(name, 1) * next(wobble)),))
        measured = {name: Samples(label=name, ns=tuple(ns), warmup_ns=(), machine={}) for name, ns in taken.items()}
        if timing._is_told(measured):
            break
    return len(taken[PLAIN])


@pytest.mark.parametrize(("noise", "rounds"), [(0.0, timing.MIN_ROUNDS), (0.3, 20)])
def test_what_is_bound_closely_is_not_timed_longer(noise, rounds):
    assert count_until_told({"fast": 2, "faster": 2.1}, noise) == rounds


@pytest.mark.parametrize(("speed", "rounds"), [(3.0, timing.MIN_ROUNDS), (1.0, 20)])
def test_one_that_is_clearly_faster_than_float_alone_is_not_timed_longer(speed, rounds):
    assert count_until_told({"only": speed}, 0.3) == rounds


def test_a_decoder_is_timed_on_prompts_and_behind_a_cache():
    shapes = {"input_ids": ("batch", "sequence"), "past_key_values.0.key": ("batch", 2, "past", 4)}
    inputs = [TensorSpec(name=name, dtype="int64", shape=shape) for name, shape in shapes.items()]
    plan = TimingPlan(shapes=((1, 16), (8, 16)), vocabulary=9, seed=0, contexts=(32,))
    found = {name: feeds["past_key_values.0.key"].shape[2] for name, feeds in plan.feed(inputs)}
    assert found == {"1x16": 0, "8x16": 0, "1x1+32": 32}
    assert len(plan) == len(found)
