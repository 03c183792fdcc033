"""A whole recording of small models, each in processes of its own: what is in it, and what a failure leaves of it."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from bench.measuring.alone import AlonePlan, measure_alone, weigh_subject
from bench.measuring.record import RecordPlan, is_narrow, record
from bench.recordings.recording import decode_recording, encode_recording
from bench.subjects.subject import SubjectSpec
from bench.timing.measure import MeasurePlan
from runtimes.artifact import hash_file
from runtimes.errors import CorruptArtifact, SubjectFailed
from tests.unit.bench.made_recordings import make_recording
from tests.unit.bench.subjects.test_process import write_endless, write_model

QUICK = MeasurePlan(blocks=2, block_seconds=0.001, min_runs=3, max_runs=3, warmup_seconds=0.01, pause_s=0.0)
PLAN = RecordPlan(rounds=QUICK, loads=2, alone=AlonePlan(timeout_s=60))


class Told:
    """Notes what it was told."""

    def __init__(self):
        self.counts = {}

    @contextmanager
    def task(self, title, total):
        self.counts[title] = [0, total]
        yield type("Task", (), {"advance": lambda _, count=1: self._add(title, count)})()

    def _add(self, title, count):
        self.counts[title][0] += count


def spec(label, model, **other):
    return SubjectSpec(label=label, runtime="onnxruntime", device="cpu", model=model, kind="onnx", threads=1, **other)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])])


@pytest.fixture
def feeds(tmp_path):
    found = {}
    for rows in (1, 4):
        path = tmp_path / f"{rows}x3.npz"
        np.savez(path, x=np.full((rows, 3), 2.0, np.float32), not_taken=np.ones(1))
        found[path.stem] = path
    return found


def test_a_recording_holds_everything_and_survives_its_file(model, feeds):
    told, seen = Told(), []

    def make_feeds(inputs):
        seen.extend(inputs)
        return feeds

    plan = replace(PLAN, alone=AlonePlan(streams=(2,), stream_seconds=0.05, timeout_s=60))
    recorded = record([spec("a", model), spec("b", model)], make_feeds, plan, told)
    recording = recorded.recording
    assert recorded.failures == {}
    assert [[one.name for one in inputs] for inputs in seen] == [["x"], ["x"]]
    assert recording.shapes() == ("1x3", "4x3")
    assert {(timing.label, len(timing.ns)) for timing in recording.timings} == {("a", 2), ("b", 2)}
    for subject in recording.subjects:
        assert subject.artifact_sha256 == hash_file(model)
        assert (len(subject.figures.load_ns), subject.figures.size_bytes) == (2, model.stat().st_size)
        assert subject.figures.peak_memory_bytes > 1e6
        assert subject.answers["1x3"]["y"] == (-2.0, -2.0, -2.0)
        assert [(one.shape, one.streams) for one in subject.throughput] == [("1x3", 2), ("4x3", 2)]
    assert recording.machine["threads"] == 1
    assert (recording.plan["rounds"], recording.plan["shapes"]) == (2, ["1x3", "4x3"])
    assert told.counts == {"loading": [2, 2], "timing, interleaved": [2, 2], "each alone": [2, 2]}
    assert decode_recording(encode_recording(recording), where="x") == recording


def test_a_damaged_subject_is_recorded_and_the_others_go_on(model, feeds, tmp_path):
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:20])
    recorded = record([spec("good", model), spec("cut", tmp_path / "cut.onnx")], lambda _: feeds, PLAN, Told())
    good, cut = recorded.recording.subjects
    assert good.failure is None
    assert "to fix:" in cut.failure
    assert {timing.label for timing in recorded.recording.timings} == {"good"}
    assert isinstance(recorded.failures["cut"], CorruptArtifact)


def test_a_subject_that_hangs_is_given_up_and_the_others_go_on(model, feeds, tmp_path):
    hanging = spec("hanging", write_endless(tmp_path / "endless.onnx"))
    plan = replace(PLAN, alone=AlonePlan(timeout_s=4))
    recorded = record([hanging, spec("good", model)], lambda _: feeds, plan, Told())
    assert isinstance(recorded.failures["hanging"], SubjectFailed)
    assert "did not answer within 4 s" in recorded.recording.subjects[0].failure
    assert {timing.label for timing in recorded.recording.timings} == {"good"}
    assert recorded.recording.subjects[1].figures.peak_memory_bytes


def test_when_no_subject_can_be_loaded_there_is_no_recording(feeds, tmp_path):
    (tmp_path / "cut.onnx").write_bytes(b"x")
    with pytest.raises(CorruptArtifact):
        record([spec("cut", tmp_path / "cut.onnx")], lambda _: feeds, PLAN, Told())


def test_a_device_that_is_not_there_is_a_missing_dependency(model, feeds):
    gpu = replace(spec("gpu", model), device="nosuchdevice")
    recorded = record([gpu, spec("cpu", model)], lambda _: feeds, PLAN, Told())
    assert recorded.failures["gpu"].exit_code == 3
    assert "no execution provider 'nosuchdevice'" in recorded.recording.subjects[0].failure


def test_with_a_time_budget_rounds_go_on_until_it_is_spent(model, feeds):
    plan = replace(PLAN, rounds=replace(QUICK, time_budget_s=0.001))
    told = Told()
    recorded = record([spec("a", model)], lambda _: feeds, plan, told)
    assert recorded.recording.plan["rounds"] == 1
    assert told.counts["timing, interleaved"] == [1, None]


def test_narrow_is_about_the_bound_and_needs_rounds():
    steady = make_recording({"a": {"1x8": 1e6}, "b": {"1x8": 2e6}}, noise=0.001)
    noisy = make_recording({"a": {"1x8": 1e6}, "b": {"1x8": 1e6}}, noise=0.2)
    few = make_recording({"a": {"1x8": 1e6}, "b": {"1x8": 1e6}}, noise=0.001, rounds=3)
    assert is_narrow(steady.timings, ["a", "b"], 0.02)
    assert not is_narrow(noisy.timings, ["a", "b"], 0.02)
    assert not is_narrow(few.timings, ["a", "b"], 0.02)
    assert not is_narrow(steady.timings, ["a"], 0.02)  # one subject has no ratio that could become known


def test_operators_are_profiled_at_every_shape(model, feeds):
    found = measure_alone(spec("a", model), feeds, AlonePlan(op_runs=2, timeout_s=60))
    assert [(one.shape, one.op) for one in found.ops] == [("1x3", "Neg"), ("4x3", "Neg")]
    assert found.left_out == ()


def test_a_missing_model_is_found_before_a_process_is_started(tmp_path):
    with pytest.raises(CorruptArtifact):
        weigh_subject(spec("a", tmp_path / "nowhere.onnx"), loads=1)
