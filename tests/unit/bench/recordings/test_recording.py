"""Sample files: the same back, and every way to be broken."""

import json

import pytest

from bench.recordings.recording import (
    Conditions,
    Figures,
    OpTime,
    Recording,
    SubjectRecord,
    Throughput,
    Timing,
    encode_recording,
    read_recording,
    write_recording,
)
from runtimes.errors import CorruptArtifact, UsageError

SUBJECT = SubjectRecord(
    label="a",
    runtime="onnxruntime",
    device="cpu",
    model="m.onnx",
    artifact_sha256="ab",
    figures=Figures(size_bytes=10, nodes=3, parameters=4, load_ns=(7, 8)),
    throughput=(Throughput(shape="1x8", streams=2, runs=5, ns=100),),
    ops=(OpTime(shape="1x8", op="MatMul", name="n", module="encoder.0", ns=3),),
    answers={"1x8": {"y": (0.5, None)}},
)
RECORDING = Recording(
    run="r1",
    started="2026-01-01T00:00:00Z",
    machine={"cpu": "x"},
    subjects=(SUBJECT,),
    timings=(
        Timing(label="a", shape="1x8", ns=((5, 7), (9,)), warmup_ns=(50,)),
        Timing(label="a", shape="8x8", ns=((50,),)),
    ),
    conditions=Conditions(probe_gflops=(1.5, 2.5), steal_share=0.01, unstable=("it moved",)),
)


def test_round_trip(tmp_path):
    path = tmp_path / "s.json"
    write_recording(path, RECORDING)
    assert read_recording(path) == RECORDING


def test_the_same_recording_gives_the_same_bytes():
    assert encode_recording(RECORDING) == encode_recording(RECORDING)


def test_samples_of_a_subject_at_a_shape():
    samples = RECORDING.samples("a", "1x8")
    assert samples is not None
    assert samples.ns == ((5, 7), (9,))
    assert samples.artifact_sha256 == "ab"
    assert RECORDING.samples("a", "2x2") is None
    assert RECORDING.shapes() == ("1x8", "8x8")


def document(change):
    told = json.loads(encode_recording(RECORDING))
    change(told)
    return json.dumps(told)


def set_schema(told):
    told["schema"] = 1


def set_kind(told):
    told["kind"] = "other"


def drop_subjects(told):
    told["recording"]["subjects"] = []


def drop_run(told):
    del told["recording"]["run"]


def set_runs(*runs):
    def change(told):
        told["recording"]["timings"][0]["ns"] = list(runs)

    return change


def rename_timing(told):
    told["recording"]["timings"][0]["label"] = "z"


def double_subject(told):
    told["recording"]["subjects"] *= 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rename_timing, "times 'z', no subject of it"),
        (double_subject, "two subjects of the sample file have one label"),
        (set_runs([10**400]), "Expected `int` <= "),
        (set_schema, "sample schema 1, this stepdown reads 2"),
        (set_kind, "not a sample file"),
        (drop_subjects, r"\$\.recording\.subjects"),
        (drop_run, "run"),
        (set_runs(), r"timings\[0\]\.ns"),
        (set_runs([]), r"timings\[0\]\.ns\[0\]"),
        (set_runs([1.5]), "Expected `int`"),
        (set_runs([0]), "Expected `int` >= 1"),
        (set_runs([-3]), "Expected `int` >= 1"),
        (set_runs([True]), "Expected `int`"),
        (set_runs(["7"]), "Expected `int`"),
        (set_runs([float("nan")]), "malformed"),
        (set_runs([float("inf")]), "malformed"),
    ],
)
def test_a_broken_part_is_named(tmp_path, change, says):
    path = tmp_path / "s.json"
    path.write_text(document(change), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=says) as caught:
        read_recording(path)
    assert str(path) in str(caught.value)
    assert "to fix" in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    content, path = encode_recording(RECORDING), tmp_path / "s.json"
    for end in range(0, len(content), 37):
        path.write_bytes(content[:end])
        with pytest.raises(CorruptArtifact):
            read_recording(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"3", b"null", b"[" * 100_000])
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(CorruptArtifact):
        read_recording(path)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="no such sample file"):
            read_recording(path)
