"""``stepdown export --target tensorrt``: what is refused before any work, and a real plan where tensorrt_rtx is."""

import json

import pytest

from exporter.cli.parsing import parse_bytes, parse_sms
from runtimes.errors import MissingDependency
from runtimes.trt.library import choose_library
from runtimes.trt.record import verify_plan
from tests.contract import tiny_models


@pytest.fixture
def model(tmp_path):
    return tiny_models.write_onnx(tmp_path)


@pytest.fixture
def rtx():
    try:
        return choose_library("tensorrt-rtx", for_sms=True)
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--target", "tensorrt", "--profile", "8x128"], 2, "min=1x8,opt=8x128,max=32x512"),
        (["--target", "tensorrt", "--sm", "ampere"], 2, "80,86,89,120"),
        (["--target", "tensorrt", "--precision", "weights-4"], 2, "tensorrt has no precision weights-4"),
        (["--precision", "fp16"], 2, "onnxruntime has no precision fp16"),
        (["--sm", "89"], 2, "--target tensorrt"),
    ],
    ids=["profile", "sm", "precision", "other target's precision", "no target"],
)
def test_options_that_cannot_be_carried_out(model, tmp_path, stepdown, options, code, message):
    result = stepdown("export", model, *options, "-o", tmp_path / "out")
    assert result.code == code
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_no_tensorrt_at_all_names_the_extra(model, tmp_path, stepdown, monkeypatch):
    def nothing(name):
        raise ImportError(name)

    monkeypatch.setattr("runtimes.trt.library.import_module", nothing)
    result = stepdown("export", model, "--target", "tensorrt", "-o", tmp_path / "out")
    assert result.code == 3
    assert "stepdown[tensorrt-rtx]" in result.err


def test_an_h100_is_refused_before_any_work_with_what_to_do(rtx, model, tmp_path, stepdown):
    result = stepdown(
        "export", model, "--target", "tensorrt", "--sm", "90", "--trt-library", rtx.name, "-o", tmp_path / "o"
    )
    assert result.code == 3
    assert "stepdown[tensorrt]" in result.err


def test_a_real_plan_is_built_and_nothing_more_is_claimed(rtx, model, tmp_path, stepdown):
    out = tmp_path / "out"
    words = ("--target", "tensorrt", "--trt-library", rtx.name, "--sm", "80,89", "--precision", "fp32")
    result = stepdown("export", model, *words, "--profile", "min=1x1,opt=2x1,max=8x1", "-o", out, "--json")
    assert result.code == 0, result.err
    manifest = json.loads((out / "manifest.json").read_text())
    entry = manifest["artifacts"]["tensorrt"]
    assert (entry["path"], entry["kind"], entry["tier"]) == ("tensorrt/model.sm80_89.plan", "plan", "built")
    assert verify_plan(out / entry["path"]).sms == (80, 89)
    assert (out / "tensorrt" / "model.onnx").is_file()
    assert result.json()["reports"][0]["timed"] is False


def test_lower_only_claims_no_plan(model, tmp_path, stepdown):
    out = tmp_path / "out"
    words = ("--target", "tensorrt", "--lower-only", "--precision", "fp32")
    assert stepdown("export", model, *words, "-o", out).code == 0
    assert json.loads((out / "report.json").read_text())["reports"][0]["tier"] == "lowered"
    assert sorted(path.name for path in (out / "tensorrt").iterdir()) == ["model.onnx"]


def test_sizes_and_generations():
    assert parse_sms("8.9,sm80,120,89") == (80, 89, 120)
    assert parse_bytes("4GB") == 4 * 10**9
