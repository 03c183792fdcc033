"""``export`` through the command line on a small model: what it writes, what it says, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtimes.artifact import hash_file
from tests.cli.tiny_artifact import WORDS, write_classifier, write_texts, write_tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder with a small model, its tokenizer, and texts."""
    folder = tmp_path_factory.mktemp("source")
    write_classifier(folder / "model.onnx")
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "negative", "1": "positive"}}))
    write_texts(folder / "texts.jsonl", [{"text": f"{a} {b}"} for a in WORDS[2:] for b in WORDS[2:]])
    return folder


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter.cli", "export", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def exported(source) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One export of the model, and what it said."""
    out = source / "out"
    words = ["--task", "text-classification", "--shape", "1x4", "--json"]
    return out, call(source / "model.onnx", "--calibration-data", source / "texts.jsonl", "-o", out, *words)


def test_the_result_is_one_json_document(exported):
    out, done = exported
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["output"] == str(out)
    (report,) = document["reports"]
    assert sum(row["chosen"] for row in report["rows"]) == 1
    assert report["timed"]
    assert all(set(row["speed"]) == {"1x4"} for row in report["rows"])


def test_the_table_goes_to_stderr(exported):
    _, done = exported
    report = json.loads(done.stdout)["reports"][0]
    assert "speed 1x4" in done.stderr
    assert all(row["name"] in done.stderr for row in report["rows"])


def test_every_file_is_in_the_manifest_with_its_hash(exported):
    out, _ = exported
    manifest = json.loads((out / "manifest.json").read_text())
    named = {record["path"]: record["sha256"] for record in manifest["files"]}
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {"manifest.json"}
    assert named.keys() == found
    assert {"report.json", "tokenizer.json", "config.json", "onnxruntime/model.onnx"} <= found
    assert all(hash_file(out / path) == sha256 for path, sha256 in named.items())
    assert str(out.parent) not in json.dumps(manifest["recipe"]["output"])


def test_the_result_runs_and_names_classes(exported, stepdown):
    out, _ = exported
    assert stepdown("run", out, "--text", "a good film").out.startswith("'a good film': positive")


def test_nothing_is_left_beside_the_output(exported):
    out, _ = exported
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "config.json",
        "model.onnx",
        "out",
        "texts.jsonl",
        "tokenizer.json",
    ]


def test_another_cpu_is_not_timed_and_says_so(source, tmp_path):
    words = ["--calibration-data", source / "texts.jsonl", "--for-isa", "avx2", "--json"]
    done = call(source / "model.onnx", "-o", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["reports"]
    assert (report["timed"], report["isa"]) == (False, "avx2")
    artifact = json.loads((tmp_path / "out" / "manifest.json").read_text())["artifacts"]["onnxruntime"]
    assert artifact["exact_on_any_cpu"] is True
    assert artifact["runs_on"].startswith("any CPU")


def test_force_replaces_the_output_whole(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "stale").write_text("x")
    done = call(source / "model.onnx", "-o", out, "--precision", "fp32", "--shape", "1x4", "--force")
    assert done.returncode == 0, done.stderr
    assert not (out / "stale").exists()
    assert done.stdout.splitlines()[-1] == str(out)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("absent.txt", None, [], "no such data file"),
        ("empty.txt", b"", [], "no text"),
        ("one.txt", b"good film\n", [], "1 different samples"),
        ("binary.txt", b"\0\1\2", [], "binary"),
        ("broken.jsonl", b'{"text": "good"}\n{"te', [], "broken.jsonl:2"),
        ("wrong.csv", b"title,stars\ngood,5\n", ["--column", "text"], "title, stars"),
        ("table.xlsx", b"x", [], ".parquet"),
    ],
)
def test_calibration_data_that_cannot_be_used(source, tmp_path, stepdown, name, content, options, message):
    data = tmp_path / name
    if content is not None:
        data.write_bytes(content)
    result = stepdown("export", source / "model.onnx", "--calibration-data", data, "-o", tmp_path / "out", *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert sorted(p.name for p in tmp_path.iterdir() if p != data) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--precision", "int8-static"], 2, "--calibration-data"),
        (["--task", "translation"], 2, "use one of"),
        (["--for-isa", "avx3"], 2, "avx512"),
        (["--opset", "999"], 2, "opset"),
        (["--eval-data", "absent.jsonl", "--metric", "accuracy"], 2, "absent.jsonl"),
    ],
)
def test_options_that_cannot_be_carried_out(source, tmp_path, stepdown, options, code, message):
    result = stepdown("export", source / "model.onnx", "-o", tmp_path / "out", *options)
    assert (result.code, result.out) == (code, ""), result.err
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(source, tmp_path, stepdown, value):
    model = onnx.load(source / "model.onnx")
    (tensor,) = (found for found in model.graph.initializer if found.name == "weight")
    tensor.CopyFrom(numpy_helper.from_array(np.array([[1, value], [0, 1]], np.float32), "weight"))
    onnx.save(model, tmp_path / "model.onnx")
    result = stepdown("export", tmp_path / "model.onnx", "-o", tmp_path / "out")
    assert result.code == 4
    assert "weight" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("absent", None, 2),
        ("absent.onnx", None, 2),
        ("empty.onnx", b"", 4),
        ("notes.txt", b"hello", 4),
        ("model.bin", b"hello", 4),
        ("model.safetensors", b"hello", 4),
        ("net.py", b"x = 1", 2),
    ],
)
def test_what_is_no_model(tmp_path, stepdown, monkeypatch, name, content, code):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = stepdown("export", tmp_path / name, "-o", tmp_path / "out")
    assert (result.code, result.out) == (code, ""), result.err
    assert "to fix:" in result.err
    assert not (tmp_path / "out").exists()


def test_a_damaged_onnx_file(tmp_path, stepdown):
    (tmp_path / "m.onnx").write_bytes(b"hello")
    assert stepdown("export", tmp_path / "m.onnx", "-o", tmp_path / "out").code in {4, 8}
