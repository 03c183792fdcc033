"""``stepdown bench`` on small models: what it prints and writes, and what each mistake says."""

import json

import pytest

from bench.recordings.history import read_history
from bench.recordings.recording import read_recording
from tests.cli.tiny_artifact import write_texts

QUICK = ("--shape", "1x8", "--time-budget", "0.1")


@pytest.fixture
def model(artifact):
    return artifact / "onnxruntime" / "model.onnx"


def test_two_subjects_are_measured_written_and_compared(stepdown, artifact, model, tmp_path):
    output, history = tmp_path / "samples.json", tmp_path / "history.jsonl"
    words = ("bench", f"other={model}", "--vs", artifact, *QUICK, "--threads", 1, "-o", output, "--history", history)
    result = stepdown(*words)
    assert result.code == 0, result.err
    recording = read_recording(output)
    assert [(one.label, one.runtime, one.device) for one in recording.subjects] == [
        ("classifier", "onnxruntime", "cpu"), ("other", "onnxruntime", "cpu"),
    ]  # fmt: skip
    assert recording.shapes() == ("1x8",)
    assert recording.machine["threads"] == 1
    assert read_history(history) == (recording,)
    assert "times the speed of classifier" in result.out
    assert result.out.splitlines()[-2:] == [str(output), str(history)]
    assert "speed vs classifier" in result.err


def test_json_has_figures_accuracy_throughput_and_operators(stepdown, artifact, tmp_path):
    data = write_texts(tmp_path / "data.jsonl", [{"text": "good", "label": "positive"}])
    result = stepdown("bench", artifact, *QUICK, "--streams", 2, "--per-op", "--data", data, "--json")
    assert result.code == 0, result.err
    document = result.json()
    (subject,) = document["subjects"]
    assert subject["accuracy"] == {"metric": "accuracy", "value": 1.0, "samples": 1}
    assert subject["figures"]["size_bytes"] > 0
    assert {op["op"] for op in subject["ops"]} >= {"MatMul"}
    (row,) = document["results"]
    assert sorted(row["runs_per_s"]) == ["1", "2"]
    assert row["p50_ns"] <= row["p99_ns"]


def test_a_report_is_written(stepdown, artifact, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    result = stepdown("bench", artifact, artifact, *QUICK, "--report", tmp_path / "report.html")
    assert result.code == 0, result.err
    assert "classifier #2" in (tmp_path / "report.html").read_text()


def test_a_failing_subject_is_recorded_and_its_code_is_the_exit_code(stepdown, artifact, model, tmp_path):
    output = tmp_path / "samples.json"
    result = stepdown("bench", artifact, f"gpu=onnxruntime@cuda:{model}", *QUICK, "-o", output)
    assert result.code == 3
    assert "failed: gpu: this onnxruntime has no execution provider 'cuda'" in result.out
    assert "to fix: install" in result.err
    good, gpu = read_recording(output).subjects
    assert (good.failure, gpu.label) == (None, "gpu")
    assert "cuda" in gpu.failure


def test_a_gpu_alone_that_is_not_there_writes_nothing(stepdown, model, tmp_path):
    result = stepdown("bench", f"onnxruntime@cuda:{model}", *QUICK, "-o", tmp_path / "samples.json")
    assert result.code == 3
    assert not (tmp_path / "samples.json").exists()


def test_a_subject_that_takes_too_long_fails_the_bench(stepdown, model):
    result = stepdown("bench", model, *QUICK, "--timeout", 0.01)
    assert result.code == 4
    assert "--timeout" in result.err


def test_copies_can_only_be_left_out_on_a_gpu(stepdown, model):
    result = stepdown("bench", model, "--device-inputs")
    assert (result.code, "no subject runs on one" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "SUBJECT"),
        (("nowhere",), "no such model"),
        (("{model}", "--affinity", "0,x"), "such as 0,1 or 0-3"),
        (("{model}", "--affinity", "3-1"), "such as 0,1 or 0-3"),
        (("{model}", "--affinity", "9999"), "no processors 9999"),
        (("{model}", "--streams", "0"), "at least 1"),
        (("{model}", "--time-budget", "0"), "seconds above 0"),
        (("{model}", "--metric", "accuracy"), "give --data"),
        (("{model}", "--data", "nowhere.jsonl", "--metric", "accuracy"), "nowhere.jsonl"),
        (("tvm:{model}",), "unknown runtime 'tvm'"),
        (("{model}", "--report", "absent/r.html"), "no such folder"),
        (("{model}", "--history", "absent/h.jsonl"), "no such folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(stepdown, model, tmp_path, words, said):
    output = tmp_path / "samples.json"
    result = stepdown("bench", *(word.format(model=model) for word in words), "-o", output)
    assert result.code == 2
    assert said in result.err
    assert not output.exists()


def test_what_exists_is_not_replaced_unless_told_to(stepdown, model, tmp_path):
    output = tmp_path / "samples.json"
    output.write_text("mine")
    refused = stepdown("bench", model, *QUICK, "-o", output)
    assert (refused.code, output.read_text()) == (2, "mine")
    assert "--force" in refused.err
    assert stepdown("bench", model, *QUICK, "-o", output, "--force").code == 0
    assert read_recording(output).subjects[0].label == "classifier"


def test_a_damaged_history_is_refused_before_anything_is_measured(stepdown, model, tmp_path):
    history = tmp_path / "history.jsonl"
    history.write_text(json.dumps({"kind": "other"}) + "\n")
    result = stepdown("bench", model, *QUICK, "--history", history)
    assert (result.code, history.read_text().count("\n")) == (8, 1)
