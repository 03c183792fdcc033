"""Every architecture of the corpus exports to INT8, calibrates and runs; and what must survive survives."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from calibration.linears import find_linears
from exporter.onnxruntime.fuse import fuse_for_cpu
from exporter.options import ExportOptions, TensorRtOptions
from exporter.passes.untie_weights import open_for_lowering
from exporter.pipeline import export_traced
from exporter.progress import SilentProgress
from exporter.stopwatch import Stopwatch
from runtimes.errors import UnsupportedModel
from runtimes.ort import OnnxRuntime
from runtimes.trt.runtime import TensorRt
from tests.corpus.architectures import CASES

_TEXT_CASES = [
    pytest.param(name, marks=[pytest.mark.slow] if case.slow else [])
    for name, case in CASES.items()
    if case.why_not is None and case.model_type
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("".join(f"w{i} w{i + 1} w{i * 7 % 100} w{i * 13 % 90} and w{i}\n" for i in range(24)))
    return path


@pytest.fixture
def export_case(traced_case, texts, tmp_path):
    """``export_case(name, **changes)``: the case's export, untimed: speed is not what the corpus is about."""

    def export(name, **changes):
        options = ExportOptions(
            model=name, output=tmp_path, calibration_data=str(texts), precision="int8", for_isa="avx2", max_drop=0.5
        )
        options = replace(options, **changes)
        return export_traced(traced_case(name), options, tmp_path, SilentProgress(), Stopwatch())[0]

    return export


def _operators(artifact):
    return [node.op_type for node in ir.load(artifact.path).graph]


@pytest.mark.parametrize("name", _TEXT_CASES)
def test_statistics_of_the_traced_graph_serve_the_fused_ones(traced_case, tmp_path, name):
    """What ``calibrate`` collects is enough for ``export --statistics``."""
    traced = traced_case(name).artifact.path

    def list_activations(path):
        return {linear.activation for linear in find_linears(open_for_lowering(path))}

    for merged in (False, True):
        fused = tmp_path / f"{merged}.onnx"
        fuse_for_cpu(traced, fused, merged=merged, unsigned=False)
        assert list_activations(fused) <= list_activations(traced)


@pytest.mark.parametrize("name", _TEXT_CASES)
def test_case_exports_calibrates_and_runs_in_int8(export_case, name):
    result = export_case(name)
    assert {row.name for row in result.report.rows} >= {"int8-dynamic", "int8-static"}
    for row in result.report.rows:
        assert row.drop < 0.02, f"{row.name} drops {row.drop:.3f}"
    assert set(_operators(result.artifact)) & {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DequantizeLinear"}
    session = OnnxRuntime().open(result.artifact)
    feeds = {spec.name: np.ones((3, 9), spec.dtype) for spec in session.inputs if len(spec.shape) == 2}
    feeds |= {spec.name: np.zeros((3, 9, 4), spec.dtype) for spec in session.inputs if len(spec.shape) == 3}
    outputs = session.run(feeds)
    assert all(np.isfinite(array).all() and len(array) == 3 for array in outputs.values())


# What TensorRT-RTX's parser has not.
_REFUSED = {"fnet": "refuses DFT", "xmod": "refuses NonZero"}


@pytest.mark.parametrize("name", _TEXT_CASES)
def test_case_becomes_a_plan_for_tensorrt(export_case, name):
    """INT8 with the rest in FP16, and a real plan where TensorRT-RTX is; or its own reason, listed above."""
    installed = TensorRt().why_cannot_build() is None
    if installed and name in _REFUSED:
        with pytest.raises(UnsupportedModel, match=_REFUSED[name]):
            export_case(name, targets=("tensorrt",), for_isa=None)
        return
    result = export_case(name, targets=("tensorrt",), for_isa=None, tensorrt=TensorRtOptions(lower_only=not installed))
    assert result.report.tier == ("built" if installed else "lowered")
    assert result.report.chosen().name.startswith("int8-static, fp16")
    assert result.report.chosen().drop < 0.02


def test_a_cnn_exports_without_texts(export_case):
    result = export_case("cnn", calibration_data=None, precision="auto")
    assert result.report.judged_on.startswith("random inputs")
    assert {row.name for row in result.report.rows} >= {"float", "int8-dynamic"}


def test_learned_scales_of_quantised_training_stay_as_they_are(export_case, traced_case):
    """The linears trained in fake quantisation are not quantised a second time."""
    before = ir.load(traced_case("bert-qat").artifact.path)
    result = export_case("bert-qat")
    after = ir.load(result.artifact.path)

    def scales(model):
        return sorted(
            float(node.inputs[1].const_value.numpy())
            for node in model.graph
            if node.op_type == "QuantizeLinear" and node.inputs[1].const_value.size == 1
        )

    learned = scales(before)
    assert len(learned) >= 4
    kept = scales(after)
    assert all(any(np.isclose(scale, other, rtol=1e-6) for other in kept) for scale in learned)


@pytest.mark.parametrize("arithmetic", ["int8-dynamic", "int8-static"])
def test_pruned_weights_stay_zero_in_int8(export_case, arithmetic):
    result = export_case("bert-sparse-80", precision=arithmetic)
    matrices = [
        value.const_value.numpy()
        for value in ir.load(result.artifact.path).graph.initializers.values()
        if value.dtype == ir.DataType.INT8 and value.const_value.numpy().ndim == 2 and "_q8" not in value.name
    ]
    sparse = [array for array in matrices if array.size >= 32 * 32 and np.mean(array == 0) > 0.79]  # 819 of 1024
    assert len(sparse) >= 4
