"""``calibrate``: shards and their merge give the bytes of one run; what cannot be merged is refused."""

import json
from pathlib import Path

import pytest

from tests.cli.tiny_artifact import WORDS, write_classifier, write_texts, write_tokenizer


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    write_classifier(folder / "model.onnx")
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({}))
    write_texts(folder / "texts.jsonl", [{"text": f"{a} {b}"} for a in WORDS[2:] for b in WORDS[2:]])
    return folder


def calibrate(stepdown, source, output, *words):
    return stepdown(
        "calibrate", source / "model.onnx", "--calibration-data", source / "texts.jsonl", "-o", output, *words
    )


def test_merged_shards_are_one_run_byte_for_byte(stepdown, source, tmp_path):
    whole = calibrate(stepdown, source, tmp_path / "whole", "--json").json()
    assert (whole["samples"], whole["shards"], whole["shard_count"], whole["dead_tensors"]) == (36, [0], 1, [])
    parts = [tmp_path / f"part{number}" for number in range(3)]
    for number, part in enumerate(parts):
        assert calibrate(stepdown, source, part, "--shard", f"{number}/3").code == 0
    merged = stepdown("calibrate", "--merge", parts[2], parts[0], parts[1], "-o", tmp_path / "merged", "--json")
    assert merged.json()["samples"] == 36
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_missing_shard_is_named(stepdown, source, tmp_path):
    calibrate(stepdown, source, tmp_path / "part", "--shard", "0/2")
    result = stepdown("calibrate", "--merge", tmp_path / "part", "-o", tmp_path / "merged")
    assert result.code == 2
    assert "missing shard 1/2" in result.err
    assert not (tmp_path / "merged").exists()


def test_shards_of_other_data_are_refused(stepdown, source, tmp_path):
    calibrate(stepdown, source, tmp_path / "a", "--shard", "0/2")
    calibrate(stepdown, source, tmp_path / "b", "--shard", "1/2", "--samples", "20")
    result = stepdown("calibrate", "--merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "merged")
    assert result.code == 2
    assert "different data" in result.err


@pytest.mark.parametrize(("content", "code"), [(None, 2), (b"hello", 8)])
def test_what_is_no_statistics_file(stepdown, tmp_path, content, code):
    if content is not None:
        (tmp_path / "part").write_bytes(content)
    assert stepdown("calibrate", "--merge", tmp_path / "part", "-o", tmp_path / "merged").code == code


def test_merging_takes_statistics_only(stepdown, source, tmp_path):
    result = calibrate(stepdown, source, tmp_path / "out", "--merge", tmp_path / "part")
    assert result.code == 2
    assert "--merge" in result.err


def test_a_tensor_that_is_always_zero_is_named(stepdown, source, tmp_path):
    write_texts(source / "texts.jsonl", [{"text": "the film"}, {"text": "a film"}])
    result = calibrate(stepdown, source, tmp_path / "out")
    assert result.code == 0
    assert "always zero: hidden" in result.out


def test_an_existing_file_needs_force(stepdown, source, tmp_path):
    (tmp_path / "out").write_text("precious")
    assert calibrate(stepdown, source, tmp_path / "out").code == 2
    assert (tmp_path / "out").read_text() == "precious"
    assert calibrate(stepdown, source, tmp_path / "out", "--force").code == 0
