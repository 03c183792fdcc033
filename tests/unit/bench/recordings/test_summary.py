"""The figures that are shown of a recording."""

from dataclasses import replace

import pytest

from bench.recordings.recording import Recording, SubjectRecord, Throughput, Timing
from bench.recordings.summary import summarise
from tests.unit.bench.made_recordings import make_recording


def test_quantiles_are_over_all_runs_and_counts_are_kept():
    blocks = tuple(tuple(range(block * 10 + 1, block * 10 + 11)) for block in range(10))
    subject = SubjectRecord(label="a", runtime="onnxruntime", device="cpu", model="a.onnx")
    timing = Timing(label="a", shape="1x8", ns=blocks)
    recording = Recording(run="r", started="", machine={}, subjects=(subject,), timings=(timing,))
    (row,) = summarise(recording)
    assert (row.p50_ns, row.p90_ns, row.p99_ns) == (50, 90, 99)
    assert (row.runs, row.rounds, row.speed) == (100, 10, None)
    assert row.runs_per_s == {1: pytest.approx(100 / 5050 * 1e9)}


def test_speed_is_against_the_first_subject():
    recording = make_recording({"ref": {"1x8": 2e6, "1x9": 2e6}, "twice": {"1x8": 1e6, "1x9": 4e6}})
    speeds = {(row.label, row.shape): row.speed for row in summarise(recording)}
    assert speeds["ref", "1x8"] is None
    assert speeds["twice", "1x8"].ratio == pytest.approx(2, rel=0.01)
    assert speeds["twice", "1x9"].ratio == pytest.approx(0.5, rel=0.01)
    assert speeds["twice", "1x8"].low < 2.01
    assert speeds["twice", "1x8"].verdict == "faster"


def test_without_timings_of_the_reference_there_is_no_speed():
    recording = make_recording({"ref": {}, "other": {"1x8": 1e6}}, failures={"ref": "crashed"})
    (row,) = summarise(recording)
    assert (row.label, row.speed) == ("other", None)


def test_measured_throughput_stands_beside_that_of_one_stream():
    recording = make_recording({"a": {"1x8": 1e6}})
    four = Throughput(shape="1x8", streams=4, runs=300, ns=10**8)
    other = Throughput(shape="1x9", streams=2, runs=1, ns=1)
    subject = replace(recording.subjects[0], throughput=(four, other))
    (row,) = summarise(replace(recording, subjects=(subject,)))
    assert row.runs_per_s == {1: pytest.approx(1000, rel=0.01), 4: pytest.approx(3000)}
