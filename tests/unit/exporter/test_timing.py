"""What timing opens, it closes, and it times what serves."""

from types import SimpleNamespace

import pytest

from exporter import timing
from exporter.timing import TimingPlan, time_trials
from exporter.trial import PLAIN
from runtimes.errors import UsageError

PLAN = TimingPlan(shapes=((1, 1),), vocabulary=2, seed=0)


class Session:
    """Counts what is asked of it."""

    inputs = ()

    def __init__(self):
        self.prepared = self.called = self.closed = 0

    def prepare(self, feeds):
        assert feeds == {}
        self.prepared += 1
        return self.call

    def call(self):
        self.called += 1

    def close(self):
        self.closed += 1


def make_trials():
    names = (PLAIN, "fp16")
    return [
        SimpleNamespace(name=name, spec=SimpleNamespace(plain=name == PLAIN), object_to_drop=lambda _: "")
        for name in names
    ]


def time_them(open_trial):
    return time_trials(make_trials(), PLAN, open_trial, lambda _: None, max_drop=0.01)


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
