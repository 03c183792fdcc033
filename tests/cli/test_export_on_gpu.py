"""``stepdown export --target tensorrt`` where there is a GPU, to the tier "ran": on stand-ins of CUDA and TensorRT.

The stand-in copies its input to its outputs, so the models multiply by one. What a real GPU answers, and how fast, is
not seen here.
"""

import time

import numpy as np
import onnx
import pytest

from bench.timing.measure import MeasurePlan
from exporter.cli.main import make_parser
from exporter.measuring.run import read_ledger
from exporter.measuring.subjects import SubjectOptions, resolve_subjects
from runtimes.artifact import read_manifest
from runtimes.errors import MissingDependency
from runtimes.trt.device import read_compute_capability
from runtimes.trt.record import read_record
from tests.stand_ins.cuda_driver import CUresult, Gpu
from tests.stand_ins.machine import make_machine
from tests.stand_ins.tensorrt_running import IExecutionContext

WIDTH = 32
GRAPH = f"""<ir_version: 8, opset_import: ["" : 17]>
one (float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y) {{
    y = MatMul (x, w)
}}"""
# So little that the product is still by one, and yet the weight is not one of few levels.
SMALL = np.float32(1e-5)
BRIEF = MeasurePlan(blocks=2, block_seconds=0.001, min_runs=1, discard=0, warmup_seconds=0, time_budget_s=1)


@pytest.fixture(autouse=True)
def _time_briefly(monkeypatch):
    for name in ("SCREENING", "FINAL"):
        monkeypatch.setattr(f"exporter.candidates.timing.{name}", BRIEF)


@pytest.fixture
def model(tmp_path):
    """One linear that is worth INT8, and data to calibrate with."""
    write_model(tmp_path / "one.onnx", np.eye(WIDTH, dtype=np.float32) + SMALL)
    x = np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    return tmp_path / "one.onnx"


@pytest.fixture
def export(stepdown, model, tmp_path):
    """Export the model to ``out``; ``data`` gives it what to calibrate with."""

    def call(*words, data=False):
        given = ("--calibration-data", tmp_path / "data.npz") if data else ()
        words = (*given, "--shape", "1x1", *words, "-o", tmp_path / "out", "--force", "--json")
        return stepdown("export", model, "--target", "tensorrt", *words)

    return call


def make_two_of_four():
    """One, with a second weight in each row, so that it has more than two levels."""
    one = np.eye(WIDTH, dtype=np.float32)
    return one + SMALL * one[np.arange(WIDTH) ^ 1]


def write_model(path, weight):
    proto = onnx.parser.parse_model(GRAPH)
    proto.graph.node[0].name = "product"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(proto, path)


def read_report(result):
    assert result.code == 0, result.err
    (report,) = result.json()["reports"]
    return report


def tell(precision):
    """What the engine inspector says of the model's product."""
    return {
        "Name": "gemm",
        "LayerType": "gemm",
        "Inputs": [{"DataType": precision}],
        "Metadata": "[ONNX Layer: product]",
    }


def find_plan(folder):
    (plan,) = (folder / "out" / "tensorrt").glob("*.plan")
    return plan


@pytest.mark.parametrize("release", ["10", "11", "rtx"])
def test_every_candidate_is_built_run_and_timed(release, export, monkeypatch, tmp_path):
    machine = make_machine(release, monkeypatch, layers=[tell("INT8")])
    report = read_report(export("--max-drop", "5%", data=True))
    assert (report["tier"], report["timed"]) == ("ran", True)
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["float (as traced)", "fp16", "int8-static, fp16"]
    assert all(row["speed"] for row in rows.values())
    # TensorRT-RTX records by itself.
    assert (machine.gpu.launches > 0) is (release != "rtx")
    entry = read_manifest(tmp_path / "out").artifacts["tensorrt"]
    record = read_record(tmp_path / "out" / entry["path"])
    assert (entry["tier"], 89 in record.sms, record.library) == ("ran", True, machine.library.name)
    assert machine.gpu.left() == {}


def test_dense_weights_are_not_offered_as_sparse(export, monkeypatch):
    make_machine("11", monkeypatch)
    report = read_report(export("--precision", "fp16", "--sparse-weights"))
    assert [row["name"] for row in report["rows"]] == ["float (as traced)", "fp16"]
    assert any("--sparse-weights changes nothing: no weight is 2:4" in finding for finding in report["findings"])
    assert report["ledger"] == []


@pytest.mark.parametrize(
    ("words", "layer", "kernel", "why"),
    [
        ((), {}, "dense", "eligible; --sparse-weights was not given"),
        (("--sparse-weights",), {"HasSparseWeights": 1}, "", "the plan with sparse kernels is"),
        (("--sparse-weights",), {}, "dense", "the plan with sparse kernels is out: TensorRT did not pick"),
        (("--sparse-weights", "--allow-unpicked"), {}, "dense", "the plan with sparse kernels is"),
        (("--sparse-weights", "--lower-only"), {}, "dense", "eligible; not timed: no plan was built"),
    ],
    ids=["not asked", "picked", "not picked", "not picked and allowed", "lowered"],
)
def test_the_ledger_says_what_became_of_two_of_four(export, model, monkeypatch, words, layer, kernel, why):
    """The identity is 2:4. Which plan is faster is chance here: both are copies."""
    write_model(model, make_two_of_four())
    make_machine("11", monkeypatch, layers=[{**tell("HALF"), **layer}])
    result = export("--precision", "fp16", *words)
    (row,) = read_report(result)["ledger"]
    assert (row["layer"], row["pattern"], row["use"]) == ("product", "2:4", "GPU 2:4 or CPU sparse kernels, 1x1")
    assert why in row["why"]
    assert row["kernel"].endswith(kernel)
    assert "what zeros in the weights are good for" in result.err


@pytest.mark.parametrize("data", [False, True], ids=["half", "int8"])
def test_the_ledger_of_a_plan_is_in_the_report_of_a_bench_run(export, model, monkeypatch, tmp_path, data):
    write_model(model, make_two_of_four())
    make_machine("11", monkeypatch, layers=[tell("INT8")])
    (row,) = read_report(export("--precision", "int8" if data else "fp16", "--max-drop", "5%", data=data))["ledger"]
    assert row["dense_bytes"] == (1 if data else 2) * WIDTH**2
    (subject,) = resolve_subjects([f"tensorrt:{tmp_path / 'out'}"], SubjectOptions())
    (read,) = read_ledger(subject)
    assert (read.layer, read.pattern, read.why) == (row["layer"], "2:4", row["why"])


@pytest.mark.parametrize(
    ("sm", "words", "cure"), [(89, ("--sm", "80"), "--sm 89"), (90, (), "stepdown[tensorrt]"), (75, (), "--sm 75")]
)
def test_plans_for_other_gpus_are_built_and_not_timed(export, monkeypatch, sm, words, cure):
    make_machine("rtx", monkeypatch, sm=sm)
    report = read_report(export(*words))
    assert (report["tier"], report["timed"]) == ("built", False)
    assert f"this GPU is sm{sm}, and the plans are for sm80" in report["verdict"]
    assert cure in report["verdict"]


def test_a_plan_without_weights_finds_them_beside_it(export, stepdown, monkeypatch, tmp_path):
    machine = make_machine("11", monkeypatch)
    assert read_report(export("--strip", "--precision", "fp16"))["tier"] == "ran"
    assert all(engine.seen_weights for engine in machine.module.seen_engines)
    np.savez(tmp_path / "one.npz", x=np.ones((1, WIDTH), np.float32))
    assert stepdown("run", tmp_path / "out", "--inputs", tmp_path / "one.npz").code == 0


def test_a_plan_with_code_is_opened_by_who_allows_it(export, stepdown, model, monkeypatch, tmp_path):
    make_machine("11", monkeypatch)
    assert read_report(export("--version-compatible", "--precision", "fp32"))["tier"] == "ran"
    entry = read_manifest(tmp_path / "out").artifacts["tensorrt"]
    assert entry["requires"] == {"tensorrt": ">=11.1.0.106"}
    x = np.ones((4, WIDTH), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    run = ("run", tmp_path / "out", "--inputs", tmp_path / "x.npz")
    refused = stepdown(*run)
    assert refused.code == 2
    assert "--allow-host-code" in refused.err
    evaluate = ("eval", tmp_path / "out", "--data", tmp_path / "x.npz", "--metric", "cosine", "--reference", model)
    for words in (run, evaluate, ("inspect", find_plan(tmp_path))):
        assert stepdown(*words, "--allow-host-code").code == 0
    for verb in ("bench", "gate"):  # a process of their own runs the plan
        assert make_parser(verb).parse_exactly(["one", "other", "--allow-host-code"]).allow_host_code


def test_layers_that_may_run_otherwise_are_named_and_no_one_asks_again(export, stepdown, monkeypatch, tmp_path):
    make_machine("11", monkeypatch, layers=[tell("HALF")])
    words = ("--precision", "int8", "--max-drop", "5%")
    refused = export(*words, data=True)
    assert refused.code == 4
    assert "1 of 1 layers do not run in INT8: product" in refused.err
    findings = read_report(export(*words, "--allow-unpicked", data=True))["findings"]
    said = "TensorRT runs int8-static, fp16 otherwise: 1 of 1 layers do not run in INT8: product"
    assert said in findings
    np.savez(tmp_path / "one.npz", x=np.ones((1, WIDTH), np.float32))
    assert stepdown("run", tmp_path / "out", "--inputs", tmp_path / "one.npz").code == 0


def test_the_layers_of_a_plan_as_a_table(export, stepdown, monkeypatch, tmp_path):
    make_machine("11", monkeypatch, layers=[tell("HALF")])
    assert export("--precision", "fp16").code == 0
    result = stepdown("inspect", find_plan(tmp_path))
    assert "plan of tensorrt 11.1.0.106" in result.out
    assert result.out.splitlines()[-1].split() == ["gemm", "gemm", "float16"]
    (layer,) = stepdown("inspect", find_plan(tmp_path), "--json").json()["layers"]
    assert (layer["precision"], layer["nodes"]) == ("float16", ["product"])
    monkeypatch.setattr("runtimes.trt.device._import_driver", make_no_driver)
    read_compute_capability.cache_clear()
    result = stepdown("inspect", find_plan(tmp_path))
    assert (result.code, "not known here: no GPU" in result.out) == (0, True)


def make_no_driver():
    raise MissingDependency("no GPU")


def test_a_plan_that_cannot_be_recorded_is_out_and_the_export_goes_on(export, monkeypatch):
    make_machine("11", monkeypatch)
    instantiate, failing = Gpu.cuGraphInstantiate, iter([False, True])

    def fail_for_the_second_plan(self, hGraph, flags):
        if next(failing, False):
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY, None
        return instantiate(self, hGraph, flags)

    monkeypatch.setattr(Gpu, "cuGraphInstantiate", fail_for_the_second_plan)
    report = read_report(export())
    assert [row["name"] for row in report["rows"]] == ["float (as traced)"]
    assert any("refuses fp16: CUDA refuses" in f for f in report["findings"]), report["findings"]


@pytest.mark.parametrize("words", [("--precision", "fp16"), ()], ids=["forced", "auto"])
@pytest.mark.parametrize("sm", [75, 89], ids=["on it", "for it"])
def test_turing_is_exported_in_half_precision(export, monkeypatch, sm, words):
    make_machine("rtx", monkeypatch, sm=sm)
    # Untimed, no provider takes the place of a plan.
    monkeypatch.setattr("exporter.tensorrt.target.available_providers", lambda: ("CUDAExecutionProvider",))
    report = read_report(export("--sm", "75", *words))
    assert [(row["name"], row["chosen"]) for row in report["rows"]] == [("fp16", True)]
    assert (report["tier"], report["timed"]) == ("built", False)
    assert any("refuses float (as traced): " in finding and "Turing" in finding for finding in report["findings"])


def test_a_provider_that_is_faster_than_every_plan_ships_as_what_it_is(export, monkeypatch, tmp_path):
    """ONNX Runtime's CPU provider stands for CUDA's: the plans are slow."""
    make_machine("11", monkeypatch)
    provider = "CPUExecutionProvider"
    monkeypatch.setattr("exporter.tensorrt.target.CUDA", provider)
    execute = IExecutionContext.execute_async_v3
    monkeypatch.setattr(
        IExecutionContext,
        "execute_async_v3",
        lambda self, stream: (self._gpu.put(stream, lambda: time.sleep(0.01)), execute(self, stream))[1],
    )
    report = read_report(export())
    assert (report["isa"], report["tier"]) == (f"GPUs of {provider}", "ran")
    entry = read_manifest(tmp_path / "out").artifacts["tensorrt"]
    assert (entry["provider"], entry["path"]) == (provider, "tensorrt/model.onnx")


def test_turing_in_float32_is_refused_with_what_works(export, monkeypatch):
    make_machine("rtx", monkeypatch, sm=75)
    result = export("--sm", "75", "--precision", "fp32")
    assert (result.code, "--precision fp16" in result.err) == (4, True)


def test_other_weights_and_int8_exclude_each_other_before_any_work(export, monkeypatch):
    make_machine("11", monkeypatch)
    result = export("--refit", "--precision", "int8", data=True)
    assert (result.code, "--precision fp16" in result.err) == (2, True)
    report = read_report(export("--refit", data=True))
    assert [row["name"] for row in report["rows"]] == ["float (as traced)", "fp16"]
    assert any("INT8 was not tried: --refit" in finding for finding in report["findings"])


def test_shapes_outside_of_every_profile_are_said_not_to_be_timed(export, monkeypatch):
    make_machine("11", monkeypatch)
    profile = "min=1x1,opt=2x1,max=4x1"
    report = read_report(export("--shape", "64x1", "--precision", "fp32", "--profile", profile))
    assert "not timed at 64x1, which no profile takes; timed at 1x1" in report["findings"]
