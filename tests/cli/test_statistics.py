"""``export --statistics``: what ``calibrate`` collected on this model takes the place of collecting."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.statistics import read, write
from exporter.collect_statistics import CollectOptions
from exporter.options import ExportOptions
from tests.cli.tiny_artifact import WORDS, write_classifier, write_texts, write_tokenizer


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with a model, its tokenizer and 36 texts."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_classifier(folder / "model.onnx")
    write_tokenizer(folder)
    write_texts(folder / "texts.jsonl", [{"text": f"{a} {b}"} for a in WORDS[2:] for b in WORDS[2:]])
    return folder


@pytest.fixture
def calibrate(stepdown, source):
    """Write the statistics of the model to ``source / name``."""

    def call(name: str, *words: object) -> Path:
        texts = source / "texts.jsonl"
        done = stepdown("calibrate", source / "model.onnx", "--calibration-data", texts, "-o", source / name, *words)
        assert done.code == 0, done.err
        return source / name

    return call


@pytest.fixture
def export(stepdown, source, tmp_path):
    """Export with statistics, untimed: speed is not what these tests are about."""

    def call(statistics: Path, *words: object):
        options = ["--statistics", statistics, "--for-isa", "avx2", "--json", "-o", tmp_path / "out"]
        return stepdown("export", source / "model.onnx", *options, *words)

    return call


def test_merged_statistics_take_the_place_of_collecting(stepdown, calibrate, export, source, tmp_path):
    parts = [calibrate(f"part{number}", "--shard", f"{number}/2") for number in range(2)]
    assert stepdown("calibrate", "--merge", *parts, "-o", source / "merged").code == 0
    done = export(source / "merged", "--precision", "int8-static")
    assert done.code == 0, done.err
    (report,) = done.json()["reports"]
    assert [row["name"] for row in report["rows"] if row["chosen"]] == ["int8-static"]
    assert report["judged_on"].startswith("random inputs")
    assert report["findings"] == []
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (step,) = [step for step in manifest["steps"] if step["step"] == "calibrate"]
    assert step == {"step": "calibrate", "samples": 36, "dataset_sha256": read(source / "merged").dataset_sha256}
    assert (tmp_path / "out" / "calibration.json").is_file()


@pytest.mark.parametrize(
    ("samples", "judged_on"), [(36, "samples that calibration may have seen"), (20, "samples after the first 20")]
)
def test_calibration_data_then_only_judges(calibrate, export, source, samples, judged_on):
    statistics = calibrate("statistics", "--samples", samples)
    done = export(statistics, "--calibration-data", source / "texts.jsonl")
    assert done.code == 0, done.err
    (report,) = done.json()["reports"]
    assert judged_on in report["judged_on"]
    assert "int8-static" in {row["name"] for row in report["rows"]}


def test_labelled_data_judges(calibrate, export, source):
    rows = [{"text": "good film", "label": 1}, {"text": "bad film", "label": 0}]
    data = write_texts(source / "labelled.jsonl", rows)
    done = export(calibrate("statistics"), "--eval-data", data, "--task", "text-classification")
    assert done.code == 0, done.err
    assert done.json()["reports"][0]["judged_on"] == str(data)


def test_statistics_of_another_model_are_refused(calibrate, export, source, tmp_path):
    statistics = calibrate("statistics")
    model = onnx.load(source / "model.onnx")
    (weight,) = (found for found in model.graph.initializer if found.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(np.array([[1, 0], [0, 2]], np.float32), "weight"))
    onnx.save(model, source / "model.onnx")
    result = export(statistics)
    assert result.code == 2
    what = result.json()["error"]["what"]
    assert read(statistics).model_sha256[:16] in what
    assert read(calibrate("others")).model_sha256[:16] in what
    assert not (tmp_path / "out").exists()


def test_statistics_that_lack_shards_are_refused(calibrate, export, tmp_path):
    result = export(calibrate("part", "--shard", "0/3"))
    assert result.code == 2
    assert result.json()["error"]["what"] == "missing shard 1/3, 2/3"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "code"), [(None, 2), (b"hello", 8)])
def test_what_is_no_statistics_file(export, tmp_path, content, code):
    if content is not None:
        (tmp_path / "statistics").write_bytes(content)
    result = export(tmp_path / "statistics")
    assert (result.code, result.json()["error"]["where"]) == (code, str(tmp_path / "statistics"))
    assert not (tmp_path / "out").exists()


def test_what_the_statistics_lack_stays_in_float_and_is_a_finding(calibrate, export):
    statistics = calibrate("statistics")
    known = read(statistics)
    write(statistics, replace(known, tensors={name: t for name, t in known.tensors.items() if name != "hidden"}))
    done = export(statistics)
    assert done.code == 0, done.err
    (finding,) = done.json()["reports"][0]["findings"]
    assert finding.endswith("no static INT8: hidden")


def test_calibrate_and_export_mean_the_same_by_default():
    """Otherwise the statistics of a plain ``calibrate`` would not be of the model that a plain ``export`` traces."""
    collecting, exporting = CollectOptions(model="", data=""), ExportOptions(model="", output=Path())
    for name in ("task", "opset", "max_length"):
        assert getattr(collecting, name) == getattr(exporting, name)
    assert collecting.samples == exporting.calibration_samples
