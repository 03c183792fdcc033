"""Candidates for TensorRT: which are offered, and what lowering makes of each."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.data import open_dataset
from exporter.candidates.linear_inputs import LinearInputs
from exporter.candidates.static_plans import StaticPlans, collect_for_plans
from exporter.candidates.trial import PLAIN
from exporter.tensorrt.candidates import (
    TrtSpec,
    TrtWorkshop,
    find_worthwhile,
    has_few_levels,
    has_sparse_weights,
    offer_trt_candidates,
)
from exporter.tensorrt.graph import prepare_for_tensorrt
from exporter.tensorrt.int4_rounding import Int4Rounding
from runtimes.ort import OnnxRuntime, describe_onnx

WIDTH = 32
MODEL = f"""<ir_version: 8, opset_import: ["" : 17]>
mlp (float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y) {{
    two = Constant <value = float {{2.0}}> ()
    up = MatMul (x, w0)
    kept = Identity (up)
    raised = Pow (kept, two)
    y = MatMul (raised, w1)
}}"""


def _names(precision, rest="fp16", **changes):
    settings = {"calibrated": True, "attention": False, "sparse": False, **changes}
    return [spec.name for spec in offer_trt_candidates(precision, rest, **settings)]


def test_what_a_user_would_run_otherwise_is_timed_too():
    assert _names("auto", providers=["CUDAExecutionProvider"])[-1] == "float, ONNX Runtime CUDA"
    assert _names("int8", providers=["CUDAExecutionProvider"]) == _names("int8")


@pytest.fixture
def model(tmp_path):
    """Two linears with a square between; the second one's weight is pruned to 2:4."""
    random = np.random.default_rng(0)
    first, second = (random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for _ in range(2))
    second.reshape(WIDTH // 4, 4, WIDTH)[:, :2] = 0
    proto = onnx.parser.parse_model(MODEL)
    proto.graph.initializer.extend(
        [onnx.numpy_helper.from_array(first, "w0"), onnx.numpy_helper.from_array(second, "w1")]
    )
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    path = tmp_path / "traced.onnx"
    onnx.save(proto, path)
    return path


def _workshop(model, tmp_path, *, scale=1.0):
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).standard_normal((16, WIDTH), np.float32) * scale)
    dataset = open_dataset(str(tmp_path / "data.npz"), describe_onnx(model).inputs, None)
    statistics = collect_for_plans(model, dataset, advance=lambda _: None)
    prepared = prepare_for_tensorrt(model, tmp_path / "prepared.onnx")
    plans = StaticPlans(graph=prepared, statistics=statistics, method="minmax", weight_bits=8, symmetric=True)
    return TrtWorkshop(
        prepared=prepared,
        directory=tmp_path,
        make_plan=plans.make_plan,
        magnitudes=statistics.magnitudes,
        rounding=Int4Rounding(inputs=LinearInputs(graph=prepared, data=None, directory=tmp_path, threads=1)),
    )


def test_plain_float_is_always_there_to_compare_with():
    assert all(_names(precision)[0] == PLAIN for precision in ("auto", "fp32", "fp16", "bf16", "int8"))


def test_each_precision_offers_what_it_says():
    assert _names("auto") == [PLAIN, "fp16", "int8-static, fp16"]
    assert _names("fp32") == [PLAIN]
    assert _names("int8", "bf16") == [PLAIN, "int8-static, bf16"]
    assert _names("auto", "fp32") == [PLAIN, "int8-static, fp32"]
    assert _names("auto", calibrated=False) == [PLAIN, "fp16"]


def test_sparse_kernels_double_what_is_not_plain():
    assert _names("auto", sparse=True) == [PLAIN, "fp16", "int8-static, fp16", "fp16, 2:4", "int8-static, fp16, 2:4"]


def test_weights_of_few_levels_may_take_four_bits():
    assert _names("auto", int4=True) == [PLAIN, "fp16", "fp16, 4-bit weights", "int8-static, fp16"]
    assert _names("int8", int4=True) == [PLAIN, "int8-static, fp16"]
    assert "fp16, 4-bit weights, 2:4" not in _names("auto", int4=True, sparse=True)


def test_rounding_to_four_bits_is_offered_as_it_can_be_done():
    both = _names("auto", methods=("rtn", "gptq"))
    assert both == [PLAIN, "fp16", "weights-4, fp16", "weights-4, fp16, gptq", "int8-static, fp16"]
    assert _names("weights-4", "bf16", methods=("rtn",), sparse=True) == [PLAIN, "weights-4, bf16"]
    assert _names("fp16", methods=("rtn",)) == [PLAIN, "fp16"]


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_weights_are_rounded_to_four_bits_a_scale_for_each_block(model, tmp_path, rest):
    workshop = _workshop(model, tmp_path)
    prepare_for_tensorrt(model, workshop.prepared, int4=True)
    artifact = workshop.build(TrtSpec(arithmetic="weights-4", rest=rest))
    loaded = ir.load(artifact.path)
    found = Counter(value.dtype for value in loaded.graph.initializers.values())
    assert found[ir.DataType.INT4] == 2
    products = [node for node in loaded.graph if node.op_type == "MatMul"]
    kind = ir.DataType.FLOAT16 if rest == "fp16" else ir.DataType.FLOAT
    assert {node.inputs[1].producer().op_type for node in products} == {"DequantizeLinear"}
    assert {node.inputs[1].dtype for node in products} == {kind}
    feeds = {"x": np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)}
    before, after = (OnnxRuntime().open(describe_onnx(path)).run(feeds)["y"] for path in (model, artifact.path))
    assert 0 < np.abs(after - before).mean() < 0.2 * np.abs(before).mean()


def test_weights_of_few_levels_are_found_and_stored(model, tmp_path):
    assert not has_few_levels(prepare_for_tensorrt(model, tmp_path / "prepared.onnx"))
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        if tensor.name == "w0":
            levels = np.sign(onnx.numpy_helper.to_array(tensor)) * np.float32(0.25)
            tensor.CopyFrom(onnx.numpy_helper.from_array(levels, "w0"))
    onnx.save(proto, model)
    workshop = _workshop(model, tmp_path)
    assert has_few_levels(workshop.prepared)
    plain, packed = (workshop.build(TrtSpec(arithmetic="float", int4=int4)).path for int4 in (False, True))
    found = Counter(value.dtype for value in ir.load(packed).graph.initializers.values())
    assert found[ir.DataType.INT4] == 1
    feeds = {"x": np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)}
    before, after = (OnnxRuntime().open(describe_onnx(path)).run(feeds) for path in (plain, packed))
    # ONNX Runtime makes a MatMulNBits of 4-bit weights, which rounds its input to 8 bits; TensorRT does not.
    assert np.abs(after["y"] - before["y"]).max() < 0.03 * np.abs(before["y"]).max()


def test_sparse_weights_are_found_in_linears_and_convolutions(model, tmp_path):
    assert has_sparse_weights(prepare_for_tensorrt(model, tmp_path / "prepared.onnx"))
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    for is_pruned in (False, True):
        if is_pruned:
            weight.reshape(16, 4, 4, 3, 3)[:, :, 1:3] = 0
        proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        conv (float[batch, 16, 8, 8] x) => (float[batch, 16, 6, 6] y) { y = Conv (x, w) }""")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        onnx.save(proto, tmp_path / "conv.onnx")
        prepared = prepare_for_tensorrt(tmp_path / "conv.onnx", tmp_path / "prepared_conv.onnx")
        assert has_sparse_weights(prepared) is is_pruned


def test_the_prepared_graph_answers_like_the_traced_one(model, tmp_path):
    prepared = prepare_for_tensorrt(model, tmp_path / "prepared.onnx")
    loaded = ir.load(prepared)
    assert loaded.graph.opset_imports[""] >= 19
    assert {"Constant", "Identity"}.isdisjoint(node.op_type for node in loaded.graph)
    assert all(value.dtype is not None for node in loaded.graph for value in node.outputs)
    feeds = {"x": np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)}
    before, after = (OnnxRuntime().open(describe_onnx(path)).run(feeds) for path in (model, prepared))
    np.testing.assert_array_equal(before["y"], after["y"])


def test_int8_reaches_every_linear_and_the_rest_is_narrow(model, tmp_path):
    workshop = _workshop(model, tmp_path)
    spec = TrtSpec(arithmetic="int8-static")
    artifact = workshop.build(spec)
    assert workshop.lowered[spec].done.int8 == ("n_up", "n_y")
    assert workshop.lowered[spec].list_findings() == ()
    loaded = ir.load(artifact.path)
    kinds = {node.op_type: node.outputs[0].dtype for node in loaded.graph}
    assert (kinds["Pow"], kinds["QuantizeLinear"]) == (ir.DataType.FLOAT16, ir.DataType.INT8)
    assert [value.dtype for value in (*loaded.graph.inputs, *loaded.graph.outputs)] == [ir.DataType.FLOAT] * 2


def test_a_candidate_for_sparse_kernels_is_the_same_file(model, tmp_path):
    workshop = _workshop(model, tmp_path)
    spec = TrtSpec(arithmetic="int8-static", sparse=True)
    assert workshop.build(spec).path == workshop.build(spec.graph()).path
    assert workshop.lowered[spec.graph()].sparse == ("n_y",)


def test_layers_left_in_float_are_not_quantised(model, tmp_path):
    workshop = _workshop(model, tmp_path)
    spec = TrtSpec(arithmetic="int8-static", float_layers=("n_up",))
    assert "1 in float" in spec.name
    workshop.build(spec)
    assert workshop.lowered[spec].done.int8 == ("n_y",)


def test_what_overflows_stays_in_float32_with_the_reason(model, tmp_path):
    workshop = _workshop(model, tmp_path, scale=100.0)
    spec = TrtSpec(arithmetic="float")
    workshop.build(spec)
    (finding, *_) = workshop.lowered[spec].list_findings()
    assert "stays in FP32" in finding
    assert "in calibration; FP16 ends at 65504" in finding


def test_small_linears_are_not_worth_it(tmp_path):
    text = MODEL.replace(str(WIDTH), "8")
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        [onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), name) for name in ("w0", "w1")]
    )
    onnx.save(proto, tmp_path / "small.onnx")
    assert find_worthwhile(prepare_for_tensorrt(tmp_path / "small.onnx", tmp_path / "prepared.onnx")) == ()
