"""``stepdown export --target tensorrt`` where there is a GPU, to the tier "ran": on stand-ins of CUDA and TensorRT.

The stand-in copies its input to its outputs, so the models multiply by one. What a real GPU answers, and how fast, is
not seen here.
"""

import numpy as np
import onnx
import pytest

from bench.measure import MeasurePlan
from runtimes.artifact import read_manifest
from runtimes.trt.record import read_record
from tests.stand_ins.machine import make_machine

WIDTH = 32
GRAPH = f"""<ir_version: 8, opset_import: ["" : 17]>
one (float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y) {{
    y = MatMul (x, w)
}}"""
BRIEF = MeasurePlan(blocks=2, block_seconds=0.001, min_runs=1, discard=0, warmup_seconds=0, time_budget_s=1)


@pytest.fixture(autouse=True)
def _time_briefly(monkeypatch):
    for name in ("SCREENING", "FINAL"):
        monkeypatch.setattr(f"exporter.timing.{name}", BRIEF)


@pytest.fixture
def model(tmp_path):
    """One linear that is worth INT8, and data to calibrate with."""
    proto = onnx.parser.parse_model(GRAPH)
    proto.graph.node[0].name = "product"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w"))
    onnx.save(proto, tmp_path / "one.onnx")
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


def read_report(result):
    assert result.code == 0, result.err
    (report,) = result.json()["reports"]
    return report


def runs_in_int8(node):
    """What the engine inspector says of a layer that multiplies in INT8."""
    return {"Name": node, "Inputs": [{"DataType": "INT8"}], "Metadata": f"[ONNX Layer: {node}]"}


@pytest.mark.parametrize("release", ["10", "11", "rtx"])
def test_every_candidate_is_built_run_and_timed(release, export, monkeypatch, tmp_path):
    machine = make_machine(release, monkeypatch, layers=[runs_in_int8("product")])
    report = read_report(export("--max-drop", "5%", data=True))
    assert (report["tier"], report["timed"]) == ("ran", True)
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["float (as traced)", "fp16", "int8-static, fp16"]
    assert all(row["speed"] for row in rows.values())
    entry = read_manifest(tmp_path / "out").artifacts["tensorrt"]
    record = read_record(tmp_path / "out" / entry["path"])
    assert (entry["tier"], 89 in record.sms, record.library) == ("ran", True, machine.library.name)
    assert machine.gpu.left() == {}
