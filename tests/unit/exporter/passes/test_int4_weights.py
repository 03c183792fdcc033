import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.linears import find_linears
from calibration.weights.blocks import BlockFormat
from calibration.weights.rtn import round_to_nearest
from exporter.passes.int4_weights import choose_block_size, store_blocks, store_int4
from exporter.passes.packed_weights import find_few_levels
from tests.unit.exporter.passes.test_packed_weights import make_levels, make_model, run


@pytest.mark.parametrize(("bits", "groups", "blocks"), [(1, 1, 1), (2, 1, 1), (4, 2, 2), (4, 1, 1)])
def test_levels_stand_behind_dequantize_with_the_widest_blocks(bits, groups, blocks):
    model = make_model("m = MatMul(x, w)  n = MatMul(x, w)  y = Add(m, n)", w=make_levels(48, 64, bits, groups).T)
    before = run(model)
    assert store_int4(model, find_few_levels(model)) == 1
    (dequantise,) = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    integers, scales = (value.const_value for value in dequantise.inputs)
    assert (integers.dtype, tuple(integers.shape)) == (ir.DataType.INT4, (64, 48))
    assert tuple(scales.shape) == (blocks, 48)
    assert dequantise.attributes["block_size"].as_int() == 64 // blocks
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-5)
    assert "w" not in model.graph.initializers


def test_scales_have_the_type_the_weight_was_given():
    weight = make_levels(48, 64, 2).T
    few = find_few_levels(make_model("y = MatMul(x, w)", w=weight))
    body = "h = Cast<to=10>(x)  m = MatMul(h, w_float16)  y = Cast<to=1>(m)"
    model = make_model(body, w_float16=weight.astype(np.float16))
    before = run(model)
    assert store_int4(model, few) == 1
    scales = next(node for node in model.graph if node.op_type == "DequantizeLinear").inputs[1]
    assert scales.dtype == ir.DataType.FLOAT16
    np.testing.assert_allclose(run(model), before, rtol=1e-2, atol=1e-2)


def test_what_is_no_product_with_blocks_stays():
    arrays = {"t": make_levels(40, 64, 2), "w": make_levels(64, 48, 2)}
    model = make_model("r = Gather(t, ids)  a = Add(r, x)  y = MatMul(a, w)", **arrays)
    few = find_few_levels(model)
    assert set(few) == {"t", "w"}
    assert not few["w"].turned  # scales along the inputs, which no block of DequantizeLinear has
    assert store_int4(model, few) == 0


GEMM = "r = Reshape(x, s)  g = Gemm<transB={}>(r, w)  y = Unsqueeze(g, z)"


@pytest.mark.parametrize(
    ("product", "shape"),
    [("y = MatMul(x, w)", (64, 48)), (GEMM.format(0), (64, 48)), (GEMM.format(1), (48, 64))],
    ids=["MatMul", "Gemm", "Gemm, transposed"],
)
def test_rounded_weights_stand_in_the_layout_they_had(product, shape):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    others = {"s": np.array([-1, 64]), "z": np.array([0])} if "Gemm" in product else {}
    model = make_model(product, w=weight, **others)
    (linear,) = find_linears(model)
    blocks = round_to_nearest(weight if linear.transposed else weight.T, BlockFormat(bits=4, size=32, positive=True))
    store_blocks(model, [linear], {linear.node: blocks})
    (dequantise,) = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    integers, scales = (value.const_value for value in dequantise.inputs)
    assert (integers.dtype, tuple(integers.shape)) == (ir.DataType.INT4, shape)
    assert (scales.numpy() > 0).all()
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    spelled = blocks.spell_out() if linear.transposed else blocks.spell_out().T
    wanted = run(make_model(product, w=spelled, **others))
    # ONNX Runtime may round the inputs of 4-bit weights to 8 bits; TensorRT does not.
    assert np.abs(run(model) - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_linear_that_was_not_rounded_stays():
    model = make_model("y = MatMul(x, w)", w=np.ones((64, 48), np.float32))
    store_blocks(model, find_linears(model), {})
    assert "w" in model.graph.initializers


def test_blocks_are_of_a_size_that_divides_the_inputs():
    assert [choose_block_size(depth) for depth in (576, 96, 48)] == [64, 32, None]
