"""What a plan says of itself: the form as it was read, and a real plan where that version of TensorRT-RTX is there."""

import numpy as np
import pytest

from bench.suites.tensorrt.plan_text import READ_FROM, Gemm, count_types, list_kernels, read_gemms
from runtimes.errors import MissingDependency, UnsupportedModel
from runtimes.trt.build import build_plan
from runtimes.trt.library import choose_library
from runtimes.trt.options import BuildOptions
from runtimes.trt.profiles import parse_profile


def write_tensor(name, dtype, *, dims='"rows" 384', constant=False, region="devmem_topdown_1"):
    payload = "const_payload_size=147456 " if constant else ""
    return (
        f'  tensor={{ alignment=128 {payload}dims={{ {dims} }} mem_prop=0 name="{name}" offset=0 rank0=0 '
        f'region="{region}" stride_order={{ 1 0 }} strides={{ 384 1 }} type={dtype} }}\n'
    )


def write_gemm(name, output, *inputs):
    given = " ".join(f'"{one}"' for one in inputs)
    return f'  fully_connected={{ name="{name}" output={{"{output}" }} input={{{given} }} stream=0 trA=false }}\n'


def write_part(tensors, steps):
    text = (
        "header {\n  version = 5\n}\ndescriptors {\n" + "".join(tensors) + "}\nmain {\n label bb1: \n" + "".join(steps)
    )
    return b"\x00\x07kernel\x00" + text.encode() + b"}\n\x00more bytes"


LINEAR = write_part(
    [
        '  sub_tensor={ base="q.1" const_offset=0 dims={ "rows" 384 } name="x^deref" offset=0 rank0=0 type=int8 }\n',
        write_tensor("w", "int8", dims="384 1152", constant=True, region="consts"),
        write_tensor("y", "half"),
        write_tensor("{ForeignNode[a...b]}_out", "float"),
        write_tensor("x.1", "float", region=""),
    ],
    [
        write_gemm("value+key+query", "y", "x^deref", "w", "alpha", "beta"),
        write_gemm("scores", "{ForeignNode[a...b]}_out", "y", "y"),
    ],
)


def test_joined_products_and_their_types():
    joined, scores = read_gemms(LINEAR)
    assert joined == Gemm(nodes=("value", "key", "query"), left="int8", right="int8", result="half", depth=384)
    assert (joined.is_linear, joined.is_int8) == (True, True)
    assert scores == Gemm(nodes=("scores",), left="half", right="half", result="float", depth=None)
    assert (scores.is_linear, scores.is_int8) == (False, False)


def test_types_are_counted_in_gpu_memory_without_constants_and_inputs():
    assert count_types(LINEAR) == {"half": 1, "float": 1}


def test_names_hold_within_a_part():
    """Two profiles make two parts, whose compiler numbers its tensors anew."""
    other = write_part(
        [write_tensor("y", "float"), write_tensor("w", "half", dims="64 8", constant=True)],
        [write_gemm("value", "y", "y", "w")],
    )
    assert [gemm.result for gemm in read_gemms(LINEAR + other)] == ["half", "float", "float"]
    assert read_gemms(LINEAR + other)[-1].depth == 64


def test_a_fused_step_reads_the_weights_of_the_part_it_belongs_to():
    fused = write_part([write_tensor("w", "int8", dims="384 64"), *map(write_operand, "xy")], [write_gemm("n", *"yxw")])
    (gemm,) = read_gemms(write_part([write_tensor("w", "int8", dims="384 64", constant=True)], []) + fused)
    assert (gemm.is_linear, gemm.depth) == (True, 384)


def test_a_convolution_is_a_product_with_its_own_depth():
    weight = write_tensor("w", "int8", dims="64 32 3 3", constant=True)
    step = write_gemm("conv", "y", "x", "w", "scale", "bias").replace("fully_connected", "corrltn")
    (gemm,) = read_gemms(write_part([weight, *map(write_operand, "xy")], [step]))
    assert (gemm.convolves, gemm.is_linear, gemm.depth) == (True, True, 32 * 3 * 3)


def write_operand(name):
    return write_tensor(name, "int8")


def test_kernels_are_named_in_order():
    steps = [f"  function={{ name={name} fqn={name}_0x1 args={{ }} }}\n" for name in ("__myl_MulAdd", "_gemm_mha_v2")]
    assert list_kernels(LINEAR + write_part([], steps)) == ("__myl_MulAdd", "_gemm_mha_v2")


def test_bytes_without_that_text_are_refused():
    with pytest.raises(UnsupportedModel, match="tensorrt-rtx"):
        read_gemms(b"vtrt\x00" * 9)


def test_another_form_is_refused_and_not_guessed():
    with pytest.raises(UnsupportedModel, match="gone of linear"):
        read_gemms(write_part([write_tensor("y", "half")], [write_gemm("linear", "y", "gone", "gone")]))


@pytest.fixture(scope="module")
def rtx():
    try:
        library = choose_library("tensorrt-rtx", for_sms=False)
    except MissingDependency as error:
        pytest.skip(str(error))
    if not library.version.startswith(f"{READ_FROM}."):
        pytest.skip(f"the plan's text was read off {READ_FROM}; this is {library.version}, and nobody documents it")
    return library


def write_attention_inputs(path):
    """Query, key and value of one quantised input: what TensorRT should join into one int8 product."""
    from onnx import TensorProto, helper, numpy_helper

    make, draw = helper.make_node, np.random.default_rng(0)
    nodes = [make("QuantizeLinear", ["x", "s", "z"], ["q"]), make("DequantizeLinear", ["q", "s", "z"], ["d"])]
    held = [("s", np.float32(0.1)), ("z", np.int8(0))]
    for name in ("query", "key", "value"):
        nodes.append(make("DequantizeLinear", [f"{name}_w", f"{name}_s"], [f"{name}_f"], axis=1))
        nodes.append(make("MatMul", ["d", f"{name}_f"], [f"{name}_y"], name=name))
        held.append((f"{name}_w", draw.integers(-127, 128, (64, 64)).astype(np.int8)))
        held.append((f"{name}_s", np.full(64, 0.01, np.float32)))
    nodes += [make("Mul", ["query_y", "key_y"], ["m"]), make("Add", ["m", "value_y"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "attention inputs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_real_plan_joins_query_key_and_value_in_int8(rtx, tmp_path):
    options = BuildOptions(profiles=(parse_profile("min=1x1,opt=8x1,max=32x1"),))
    build_plan(rtx, write_attention_inputs(tmp_path / "m.onnx"), tmp_path / "m.plan", options)
    (gemm,) = read_gemms((tmp_path / "m.plan").read_bytes())
    assert set(gemm.nodes) == {"query", "key", "value"}
    assert (gemm.is_int8, gemm.depth) == (True, 64)
