"""Rounds over real processes: what pairs, what fails alone, and when it stops."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from bench.measuring.rounds import count_turns, measure_rounds
from bench.subjects.subject import SubjectSpec
from bench.timing.measure import MeasurePlan
from runtimes.errors import CorruptArtifact, SubjectFailed, UsageError
from tests.unit.bench.subjects.test_process import X, write_endless, write_model

PLAN = MeasurePlan(blocks=5, block_seconds=0.001, min_runs=2, max_runs=3, pause_s=0.0, discard=0, warmup_seconds=0.01)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])])


@pytest.fixture
def feeds(tmp_path):
    for rows in (1, 4):
        np.savez(tmp_path / f"{rows}.npz", x=np.repeat(X, rows, axis=0))
    return {"1x3": tmp_path / "1.npz", "4x3": tmp_path / "4.npz"}


def spec(label, model):
    return SubjectSpec(label=label, runtime="onnxruntime", device="cpu", model=model, kind="onnx", threads=1)


def test_every_subject_has_a_block_in_every_round_at_every_shape(model, feeds):
    told = []
    found = measure_rounds(
        [spec("a", model), spec("b", model)], feeds, PLAN, on_round=lambda done, planned: told.append((done, planned))
    )
    assert [(one.label, one.shape) for one in found.timings] == [
        ("a", "1x3"), ("b", "1x3"), ("a", "4x3"), ("b", "4x3"),
    ]  # fmt: skip
    assert {len(one.ns) for one in found.timings} == {5}
    assert {len({len(block) for block in one.ns}) for one in found.timings} == {1}
    assert told == [(number, 5) for number in range(1, 6)]
    assert not found.failures
    assert found.opened["a"].load_memory_bytes >= 0


def test_a_slow_subject_sets_the_turns_and_every_block_is_whole(model, feeds):
    """Runs follow from the speed within the plan's limits, whatever the number of turns they are given in."""
    plan = MeasurePlan(blocks=2, block_seconds=0.002, min_runs=3, max_runs=25, pause_s=0.0, warmup_seconds=0.01)
    found = measure_rounds([spec("a", model), spec("b", model)], feeds, plan)
    for one in found.timings:
        assert len({len(block) for block in one.ns}) == 1
        assert 3 <= len(one.ns[0]) <= 25


@pytest.mark.parametrize(
    ("runs", "typical_ms", "turns"),
    [(18, 5.5, 10), (30, 1.18, 3), (30, 0.01, 1), (4, 100, 4), (1, 1000, 1)],
    ids=["of a run or two", "caches warm up", "one piece", "a run each", "a single run"],
)
def test_turns_are_many_and_long_enough(runs, typical_ms, turns):
    assert count_turns(runs, typical_ms * 1e6) == turns


def test_one_that_cannot_be_opened_and_one_that_hangs_leave_the_others_alone(model, feeds, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    specs = [spec("good", model), spec("broken", broken), spec("endless", write_endless(tmp_path / "e.onnx"))]
    found = measure_rounds(specs, feeds, PLAN, timeout_s=2)
    assert {one.label for one in found.timings} == {"good"}
    assert {len(one.ns) for one in found.timings} == {5}
    assert isinstance(found.failures["broken"], CorruptArtifact)
    assert isinstance(found.failures["endless"], SubjectFailed)


def test_one_that_dies_midway_is_dropped_whole(model, feeds):
    def kill_one(done, _planned):
        if done == 2:
            for pid in list_workers():
                os.kill(pid, signal.SIGKILL)
                return

    found = measure_rounds([spec("a", model), spec("b", model)], feeds, PLAN, on_round=kill_one)
    assert len(found.failures) == 1
    assert len({one.label for one in found.timings}) == 1
    assert {len(one.ns) for one in found.timings} == {5}


def test_it_stops_when_told_that_it_is_enough(model, feeds):
    found = measure_rounds([spec("a", model)], feeds, PLAN, is_enough=lambda so_far: len(so_far.timings[0].ns) == 2)
    assert len(found.timings[0].ns) == 2


def test_without_time_there_is_one_round(model, feeds):
    plan = MeasurePlan(blocks=5, min_runs=2, max_runs=2, pause_s=0.0, warmup_seconds=0.01, time_budget_s=0)
    assert len(measure_rounds([spec("a", model)], feeds, plan).timings[0].ns) == 1


def test_nothing_to_measure_and_equal_labels(model, feeds):
    for specs, given in (([], feeds), ([spec("a", model)], {})):
        with pytest.raises(UsageError, match="nothing to measure"):
            measure_rounds(specs, given, PLAN)
    with pytest.raises(UsageError, match="the same label"):
        measure_rounds([spec("a", model), spec("a", model)], feeds, PLAN)


def list_workers():
    """The workers that this process started; other tests have children of their own, such as a browser."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [int(pid) for pid in children if b"bench.subjects.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
