"""``stepdown export --target tensorrt``: what is refused before any work, and a real plan where tensorrt_rtx is."""

import json

import numpy as np
import onnx
import pytest

from exporter.cli.parsing import parse_bytes, parse_sms
from runtimes.errors import MissingDependency
from runtimes.trt.library import choose_library
from runtimes.trt.record import verify_plan
from tests.contract import tiny_models
from tests.unit.exporter.tracing.made_gguf import make_llama, write_llama


@pytest.fixture
def model(tmp_path):
    return tiny_models.write_onnx(tmp_path)


@pytest.fixture
def mlp(tmp_path):
    """Two linears that are worth INT8, and data to calibrate with."""
    width = 32
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    mlp (float[batch, {width}] x) => (float[batch, {width}] y) {{
        up = MatMul (x, w0)
        act = Relu (up)
        y = MatMul (act, w1)
    }}""")
    random = np.random.default_rng(0)
    for name in ("w0", "w1"):
        weight = random.standard_normal((width, width)).astype(np.float32) / width**0.5
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    onnx.save(proto, tmp_path / "mlp.onnx")
    np.savez(tmp_path / "data.npz", x=random.standard_normal((64, width)).astype(np.float32))
    return (tmp_path / "mlp.onnx", "--calibration-data", tmp_path / "data.npz")


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
        (["--target", "tensorrt", "--precision", "weights-8"], 2, "tensorrt has no precision weights-8"),
        (["--precision", "fp16"], 2, "onnxruntime has no precision fp16"),
        (["--sm", "89"], 2, "--target tensorrt"),
        (["--target", "tensorrt", "--precision", "int8"], 2, "--calibration-data"),
    ],
    ids=["profile", "sm", "precision", "other target's precision", "no target", "no data"],
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


def test_one_calibration_serves_both_targets(rtx, mlp, tmp_path, stepdown):
    out = tmp_path / "out"
    words = ("--target", "onnxruntime", "--target", "tensorrt", "--trt-library", rtx.name, "--precision", "int8")
    result = stepdown("export", *mlp, *words, "--max-drop", "5%", "--for-isa", "avx2", "-o", out, "--json")
    assert result.code == 0, result.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["artifacts"]) == ["onnxruntime", "tensorrt"]
    calibrated = [step for step in manifest["steps"] if step["step"] == "calibrate"]
    assert len(calibrated) == 2
    assert calibrated[0] == calibrated[1]
    reports = {report["target"]: report for report in json.loads((out / "report.json").read_text())["reports"]}
    (chosen,) = [row for row in reports["tensorrt"]["rows"] if row["chosen"]]
    assert chosen["name"] == "int8-static, fp16"
    assert reports["tensorrt"]["verdict"].endswith("not timed")
    assert len(verify_plan(out / manifest["artifacts"]["tensorrt"]["path"]).expected.int8) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "chosen"), [("int8", "int8-static, fp16"), ("weights-4", "weights-4, fp16")])
def test_a_language_model_is_one_plan_for_prompts_and_for_single_tokens(rtx, tmp_path, stepdown, precision, chosen):
    texts, out = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_text("".join(f"the hen sat on {number} eggs, and the fox ran home\n" for number in range(24)))
    words = ("--target", "tensorrt", "--trt-library", rtx.name, "--sm", "89", "--precision", precision)
    checkpoint = write_llama(tmp_path / "tiny.gguf", make_llama())
    result = stepdown(
        "export", checkpoint, *words, "--calibration-data", texts, "--max-drop", "90%", "-o", out, "--json"
    )
    assert result.code == 0, result.err
    (won,) = [row["name"] for row in result.json()["reports"][0]["rows"] if row["chosen"]]
    assert won.startswith(chosen)
    record = verify_plan(out / "tensorrt" / "model.sm89.plan")
    prompts, tokens = record.profiles
    assert (prompts["past_key_values.0.key"].max[2], tokens["input_ids"].max[1]) == (0, 1)
    assert tokens["past_key_values.0.key"].max[2] > 0
    # A layer has seven linears, and the head is one more.
    assert len(record.expected.int8) == (15 if precision == "int8" else 0)


def test_equal_exports_give_equal_plans(rtx, mlp, tmp_path, stepdown):
    plans = []
    for name in ("a", "b"):
        words = ("--target", "tensorrt", "--trt-library", rtx.name, "--precision", "int8", "--max-drop", "5%")
        result = stepdown("export", *mlp, *words, "-o", tmp_path / name)
        assert result.code == 0, result.err
        (plan,) = (tmp_path / name / "tensorrt").glob("*.plan")
        plans.append(plan.read_bytes())
    assert plans[0] == plans[1]


def test_a_model_too_small_for_int8_says_so(model, tmp_path, stepdown):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32))
    words = ("--target", "tensorrt", "--lower-only", "--precision", "int8")
    result = stepdown("export", model, *words, "--calibration-data", tmp_path / "data.npz", "-o", tmp_path / "out")
    assert result.code == 4
    assert "--precision fp16" in result.err


def test_a_custom_operator_is_named_with_its_node(model, tmp_path, stepdown):
    proto = onnx.load(model)
    proto.graph.node[-1].name, proto.graph.node[-1].op_type, proto.graph.node[-1].domain = "last", "Frobnicate", "acme"
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(proto, model)
    result = stepdown("export", model, "--target", "tensorrt", "--lower-only", "-o", tmp_path / "out")
    assert result.code == 4
    assert "Frobnicate is a custom operator, of the domain acme" in result.err
    assert f"{model.name}:last" in result.err


def test_turing_takes_half_precision(rtx, mlp, tmp_path, stepdown):
    out = tmp_path / "out"
    words = ("--target", "tensorrt", "--trt-library", rtx.name, "--sm", "75", "--precision", "fp16")
    result = stepdown("export", *mlp, *words, "-o", out)
    assert result.code == 0, result.err
    assert [path.name for path in (out / "tensorrt").glob("*.plan")] == ["model.sm75.plan"]
    (report,) = json.loads((out / "report.json").read_text())["reports"]
    assert any("Turing" in finding for finding in report["findings"])


def test_lower_only_claims_no_plan(model, tmp_path, stepdown):
    out = tmp_path / "out"
    words = ("--target", "tensorrt", "--lower-only", "--precision", "fp32")
    assert stepdown("export", model, *words, "-o", out).code == 0
    assert json.loads((out / "report.json").read_text())["reports"][0]["tier"] == "lowered"
    assert sorted(path.name for path in (out / "tensorrt").iterdir()) == ["model.onnx"]


def test_sizes_and_generations():
    assert parse_sms("8.9,sm80,120,89") == (80, 89, 120)
    assert parse_bytes("4GB") == 4 * 10**9
