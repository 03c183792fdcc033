"""Lowering to explicit Q/DQ for TensorRT against a numpy oracle, and the shape of what comes out."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from calibration.linears import find_linears
from calibration.lower.tensorrt.lower import lower_tensorrt
from calibration.lower.tensorrt.placement import place
from calibration.lower.tensorrt.products import find_products
from calibration.lower.tensorrt.scales import round_up
from calibration.plan import ActivationGroup, LinearPlan, Plan
from calibration.quantise import quantise_weight
from exporter.lint.rule import run_rules
from exporter.lint.tensorrt import RULES
from runtimes.errors import UnsupportedModel

DEPTH, WIDTH = 32, 24
SCALE = 0.03


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _graph_of(text, opset=21, **arrays):
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _linears_model(readers=1, biased=True):
    outputs = ", ".join(f"float[b, s, {WIDTH}] y{i}" for i in range(readers))
    last = "y{0} = Add(m{0}, b{0})" if biased else "y{0} = Relu(m{0})"
    body = "".join(f" m{i} = MatMul(x, w{i})\n {last.format(i)}\n" for i in range(readers))
    arrays = {f"w{i}": _draw(DEPTH, WIDTH, seed=i) for i in range(readers)}
    if biased:
        arrays |= {f"b{i}": _draw(WIDTH, seed=10 + i) for i in range(readers)}
    return _graph_of(f"g (float[b, s, {DEPTH}] x) => ({outputs}) {{ {body} }}", **arrays)


def _plan(model, *, smooth=None, scale=SCALE, dtype="int8", delta=0.25):
    groups, entries, by_tensor = [], [], {}
    for linear in find_linears(model):
        by_tensor.setdefault(linear.activation, []).append(linear)
        weight = model.graph.initializers[linear.weight].const_value.numpy()
        weight = weight if smooth is None else weight * smooth[:, None]
        _, steps, _ = quantise_weight(weight, 0 if linear.transposed else 1)
        correction = None if delta is None else np.full(linear.shape[1], delta, np.float32)
        entries.append(
            LinearPlan(node=linear.node, weight=linear.weight, weight_scale=steps, weight_zero_point=0, weight_bits=8,
                       bias_delta=correction, error=0.0, why="test")
        )  # fmt: skip
    for tensor, linears in by_tensor.items():
        groups.append(
            ActivationGroup(tensor=tensor, linears=tuple(one.node for one in linears), smooth=smooth, scale=scale,
                            zero_point=0, dtype=dtype, bits=8, method="minmax", why="test", error=0.0)
        )  # fmt: skip
    return Plan(groups=tuple(groups), linears=tuple(entries))


def _lower(model, *, precision="fp32", plan=None, magnitudes=None, products=()):
    return lower_tensorrt(
        model, find_linears(model), plan or _plan(model), precision=precision, magnitudes=magnitudes or {},
        products=products,
    )  # fmt: skip


def _run(model, feeds):
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _feeds(*shape):
    return {"x": _draw(*(shape or (2, 5, DEPTH)), seed=3)}


def _integers(x, scale):
    return np.clip(np.rint(x / np.float32(scale)), -128, 127)


def _count(model, op_type):
    return sum(node.op_type == op_type for node in model.graph)


def _broken(model):
    return [(item.rule, item.node, item.what) for item in run_rules(model, RULES)]


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_linears_compute_what_their_integers_mean(smoothed, biased):
    model = _linears_model(readers=2, biased=biased)
    smooth = np.exp(_draw(DEPTH, seed=5)) if smoothed else None
    plan, feeds = _plan(model, smooth=smooth), _feeds()
    expected = []
    for index, entry in enumerate(plan.linears):
        weight = model.graph.initializers[f"w{index}"].const_value.numpy()
        x = feeds["x"]
        if smoothed:
            x, weight = x * (1 / smooth).astype(np.float32), weight * smooth[:, None]
        values = np.clip(np.rint(weight / entry.weight_scale), -127, 127)
        product = _integers(x, SCALE) @ values * (np.float64(SCALE) * entry.weight_scale) + 0.25
        own = model.graph.initializers[f"b{index}"].const_value.numpy() if biased else 0
        expected.append(product + own if biased else np.maximum(product, 0))
    _lower(model, plan=plan)
    for got, want in zip(_run(model, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-4)
    assert _broken(model) == []


def test_one_quantiser_serves_query_key_and_value():
    model = _linears_model(readers=3)
    _lower(model)
    assert _count(model, "QuantizeLinear") == 1
    assert _count(model, "DequantizeLinear") == 1 + 3


def test_weights_are_stored_once_and_as_int8():
    model = _linears_model(readers=2)
    _lower(model)
    kinds = [v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value.size == DEPTH * WIDTH]
    assert [array.dtype.name for array in kinds] == ["int8", "int8"]


def _conv_model():
    text = """g (float[b, 16, h, w] x) => (float[b, 20, h, w] y) { y = Conv<pads=[1, 1, 1, 1]>(x, weight, bias) }"""
    return _graph_of(text, weight=_draw(20, 16, 3, 3), bias=_draw(20))


def _gemm_model(trans_b):
    text = f"""g (float[b, {DEPTH}] x) => (float[b, {WIDTH}] y) {{ y = Gemm<transB={trans_b}>(x, weight) }}"""
    return _graph_of(text, weight=_draw(*((WIDTH, DEPTH) if trans_b else (DEPTH, WIDTH))))


@pytest.mark.parametrize(
    ("make", "axis", "shape"),
    [
        (_conv_model, 0, (2, 16, 6, 6)),
        (lambda: _gemm_model(1), 0, (4, DEPTH)),
        (lambda: _gemm_model(0), 1, (4, DEPTH)),
        (_linears_model, 1, (2, 5, DEPTH)),
    ],
)
def test_the_axis_is_written_down_and_is_that_of_the_outputs(make, axis, shape):
    model = make()
    (before,) = _run(model, _feeds(*shape))
    _lower(model, plan=_plan(model, delta=None))
    dequantise = [node for node in model.graph if node.op_type == "DequantizeLinear" and "axis" in node.attributes]
    assert [node.attributes["axis"].as_int() for node in dequantise] == [axis]
    (after,) = _run(model, _feeds(*shape))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    assert _broken(model) == []


def test_a_plan_with_unsigned_activations_is_refused():
    model = _linears_model()
    with pytest.raises(UnsupportedModel, match="int8 around 0"):
        _lower(model, plan=_plan(model, dtype="uint8"))


# The middle of a small encoder: linear, norm, linear, with what sits between.
_BLOCK = f"""g (float[b, s, {DEPTH}] x) => (float[b, s, {DEPTH}] y) {{
  m = MatMul(x, w)
  a = Add(m, c)
  r = Add(a, x)
  n = LayerNormalization<axis=-1>(r, gamma, beta)
  o = MatMul(n, v)
  y = Add(o, n) }}"""


def _block_model():
    ones = np.ones(DEPTH, np.float32)
    return _graph_of(
        _BLOCK, w=_draw(DEPTH, DEPTH), v=_draw(DEPTH, DEPTH, seed=1), c=_draw(DEPTH), gamma=ones, beta=0 * ones
    )


def test_half_precision_is_in_the_types_of_the_graph():
    model = _block_model()
    (before,) = _run(model, _feeds())
    lowered = _lower(model, precision="fp16")
    assert lowered.kept == {}
    floats = {node.op_type for node in model.graph for v in node.outputs if v.dtype == ir.DataType.FLOAT}
    assert floats == {"Cast", "DequantizeLinear", "MatMul"}  # int8 sums, see the next test
    scales = {node.inputs[1].dtype for node in model.graph if node.op_type == "QuantizeLinear"}
    assert scales == {ir.DataType.FLOAT16}
    assert (model.graph.inputs[0].dtype, model.graph.outputs[0].dtype) == (ir.DataType.FLOAT, ir.DataType.FLOAT)
    assert model.graph.outputs[0].name == "y"
    (after,) = _run(model, _feeds())
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    assert _broken(model) == []


def test_half_precision_keeps_the_integers_of_the_scale_it_can_hold():
    model = _linears_model()
    plan = _plan(model)
    weight = model.graph.initializers["w0"].const_value.numpy()
    _lower(model, precision="fp16", plan=plan)
    scale = round_up(plan.linears[0].weight_scale, ir.DataType.FLOAT16)
    stored = next(v.const_value.numpy() for n, v in model.graph.initializers.items() if n == "w0_int8")
    np.testing.assert_array_equal(stored, np.clip(np.rint(weight / scale), -127, 127))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@hypothesis.given(scale=st.floats(2.0**-100, 1e4, width=32))
def test_scales_are_rounded_up_and_never_to_zero(precision, scale):
    kind = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}[precision]
    rounded = round_up(scale, kind)
    assert rounded >= np.float32(scale)
    assert rounded.astype(kind.numpy()).astype(np.float32) == rounded
    if scale > 1e-4:
        assert rounded <= np.float32(scale) * (1 + 2**-7)


def test_what_overflows_stays_in_fp32_with_the_reason():
    model = _block_model()
    (before,) = _run(model, _feeds())
    lowered = _lower(model, precision="fp16", magnitudes={"r": 40000.0})
    assert set(lowered.kept) == {"Add_2", "LayerNormalization_3"}
    assert "r reached 4e+04" in lowered.kept["Add_2"]
    (after,) = _run(model, _feeds())
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    assert _broken(model) == []


def test_a_linear_that_overflows_stays_int8_with_scales_in_fp32():
    model = _block_model()
    lowered = _lower(model, precision="fp16", magnitudes={"o": 1e6})
    assert {"MatMul_4", "MatMul_4_correct", "Add_5"} == set(lowered.kept)
    product = next(node for node in model.graph if node.name == "MatMul_4")
    assert [v.producer().op_type for v in product.inputs] == ["DequantizeLinear"] * 2
    assert product.outputs[0].dtype == ir.DataType.FLOAT
    _run(model, _feeds())


def test_the_filling_of_a_mask_comes_into_range():
    text = """g (float[b, s] x, bool[b, s] hide) => (float[b, s] y) {
      m = Where(hide, lowest, zero)
      n = Add(m, m)
      a = Add(x, n)
      y = Softmax<axis=-1>(a) }"""
    arrays = {"lowest": np.array(-3.4e38, np.float32), "zero": np.array(0, np.float32)}
    model = _graph_of(text, **arrays)
    lowered = lower_tensorrt(model, (), None, precision="fp16", magnitudes={})
    assert lowered.kept == {}
    hide = np.array([[True, True], [False, True]])
    (got,) = _run(model, {"x": np.array([[1, 2], [3, 4]], np.float32), "hide": hide})
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[1], [1, 0])


def test_an_epsilon_fp16_cannot_hold_keeps_its_reader():
    text = "g (float[b, s] x) => (float[b, s] y) { d = Add(x, eps)\n y = Sqrt(d) }"
    model = _graph_of(text, eps=np.array(1e-12, np.float32))
    lowered = lower_tensorrt(model, (), None, precision="fp16", magnitudes={})
    assert list(lowered.kept) == ["Add_0"]
    assert "1e-12" in lowered.kept["Add_0"]


@pytest.mark.parametrize("scale", [600.0, 1.0])
def test_what_smoothing_takes_past_fp16_stays_in_fp32(scale):
    """Also where the integers end long before: clipping happens behind the smoothing."""
    model = _linears_model()
    smooth = np.full(DEPTH, 0.125, np.float32)
    plan = _plan(model, smooth=smooth, scale=scale)
    # Twice this fits FP16, eight times does not.
    lowered = _lower(model, precision="fp16", plan=plan, magnitudes={"x": 3e4})
    assert any(name.endswith("_smooth") for name in lowered.kept)
    quantise = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    assert quantise.inputs[0].dtype == ir.DataType.FLOAT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_int8_product_writes_float32_and_is_cast_behind_it(precision):
    """TensorRT writes its bare sums in that type: FP16 would overflow, BF16 would round them."""
    model = _block_model()
    lowered = _lower(model, precision=precision)
    assert lowered.kept == {}
    for node in model.graph:
        if node.name in lowered.int8:
            assert {value.dtype for value in (*node.inputs[:2], *node.outputs)} == {ir.DataType.FLOAT}
            assert {use.node.op_type for use in node.outputs[0].uses()} == {"Cast"}


def test_nan_in_calibration_stays_in_fp32():
    lowered = _lower(_block_model(), precision="fp16", magnitudes={"o": np.nan})
    assert "Add_5" in lowered.kept


@pytest.mark.parametrize("name", ["x_scale", "MatMul_0_q_out", "x_float16", "w0_int8"])
@pytest.mark.parametrize("place", ["input", "value", "output"])
def test_what_is_added_takes_no_name_that_is_there(name, place):
    inputs = f", float[2, {WIDTH}] {name}" if place == "input" else ""
    outputs = f", float[2, {WIDTH}] {name}" if place == "output" else ""
    inner = "" if place == "input" else f"{name} = Neg(h)"
    graph = f"g (float[2, {DEPTH}] x{inputs}) => (float[2, {WIDTH}] y{outputs}) {{ h = MatMul(x, w0)\n {inner}\n"
    model = _graph_of(f"{graph} y = Add(h, {name}) }}", w0=_draw(DEPTH, WIDTH))
    feeds = _feeds(2, DEPTH) | ({name: _draw(2, WIDTH, seed=5)} if place == "input" else {})
    given = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    wanted = _run(model, feeds)
    _lower(model, precision="fp16", plan=_plan(model, delta=None))
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == given
    for ours, theirs in zip(_run(model, feeds), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.5)


def test_unmeasured_tensors_are_named():
    model = _block_model()
    assert set(_lower(model, precision="fp16", magnitudes={"m": 1.0}).unmeasured) == {"a", "r", "n", "o", "y"}


def test_bfloat16_types_the_graph_without_asking_for_magnitudes():
    model = _block_model()
    lowered = _lower(model, precision="bf16", magnitudes={"r": 1e30})
    assert lowered.kept == {}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert {node.inputs[1].dtype for node in model.graph if node.op_type == "QuantizeLinear"} == {ir.DataType.BFLOAT16}


def test_an_old_operator_set_is_refused_with_the_cure():
    model = _graph_of("g (float[b] x) => (float[b] y) { y = Relu(x) }", opset=17)
    with pytest.raises(UnsupportedModel, match="opset 19"):
        lower_tensorrt(model, (), None, precision="fp16", magnitudes={})


_ATTENTION = """g (float[b, 2, s, 8] q, float[b, 2, s, 8] k, float[b, 2, s, 8] v) => (float[b, 2, s, 8] y) {
  t = Transpose<perm=[0, 1, 3, 2]>(k)
  p = MatMul(q, t)
  c = Mul(p, factor)
  w = Softmax<axis=-1>(c)
  y = MatMul(w, v) }"""


def test_attention_products_are_quantised_on_request():
    model = _graph_of(_ATTENTION, factor=np.array(0.35, np.float32))
    products = find_products(model, {"q": 4.0, "k": 4.0, "v": 4.0})
    assert [(product.left, product.right) for product in products] == [(4.0, 4.0), (1.0, 4.0)]
    feeds = {name: _draw(1, 2, 6, 8, seed=seed) for seed, name in enumerate("qkv")}
    (before,) = _run(model, feeds)
    _lower(model, plan=Plan(groups=(), linears=()), products=products)
    assert _count(model, "QuantizeLinear") == 4
    (after,) = _run(model, feeds)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.99
    assert _broken(model) == []


def test_small_layers_are_left_with_the_reason():
    model = _graph_of(
        "g (float[b, 3, h, w] x) => (float[b, 32, h, w] y) { y = Conv<pads=[1, 1, 1, 1]>(x, weight) }",
        weight=_draw(32, 3, 3, 3),
    )
    placement = place(model, find_linears(model))
    assert placement.quantised == ()
    assert "3 inputs" in placement.left["Conv_0"]


def test_a_pointwise_convolution_is_smoothed_along_its_channels():
    """Its channels are the second axis of what it reads: image axes must not be taken for them."""
    text = "g (float[b, 16, h, w] x) => (float[b, 24, h, w] y) { y = Conv(x, weight) }"
    weight, feeds = _draw(24, 16, 1, 1), _feeds(2, 16, 16, 16)
    model = _graph_of(text, weight=weight)
    smooth = np.exp(_draw(16, seed=5))
    linear = find_linears(model)[0]
    _, steps, _ = quantise_weight(weight * smooth.reshape(1, -1, 1, 1), 0)
    group = ActivationGroup(
        tensor="x", linears=(linear.node,), smooth=smooth, scale=SCALE, zero_point=0, dtype="int8", bits=8,
        method="minmax", why="test", error=0.0,
    )  # fmt: skip
    entry = LinearPlan(
        node=linear.node, weight="weight", weight_scale=steps, weight_zero_point=0, weight_bits=8, bias_delta=None,
        error=0.0, why="test",
    )  # fmt: skip
    _lower(model, plan=Plan(groups=(group,), linears=(entry,)))
    integers = _integers(feeds["x"] * (1 / smooth).astype(np.float32).reshape(-1, 1, 1), SCALE)
    values = np.clip(np.rint(weight * smooth.reshape(1, -1, 1, 1) / steps.reshape(-1, 1, 1, 1)), -127, 127)[:, :, 0, 0]
    expected = np.einsum("bchw,oc->bohw", integers, values) * np.float64(SCALE) * steps.reshape(-1, 1, 1)
    (got,) = _run(model, feeds)
    np.testing.assert_allclose(got, expected, atol=2e-4)
    assert _broken(model) == []


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_cache_may_be_as_narrow_as_the_rest(precision):
    """What is asked for changes its type, other inputs and outputs do not, and a node kept in FP32 reads a cast."""
    model = _graph_of(
        """cached (float[1, past] old, float[1, 4] new) => (float[1, total] kept, float[1, total] y) {
            kept = Concat <axis = 1> (old, new)
            y = Mul (kept, kept)
        }"""
    )
    lower_tensorrt(
        model, (), None, precision=precision, magnitudes=dict.fromkeys(("old", "new", "kept"), 1.0) | {"y": 1e9},
        narrow_ends={"old", "kept"},
    )  # fmt: skip
    kind = ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.BFLOAT16
    assert [value.dtype for value in model.graph.inputs] == [kind, ir.DataType.FLOAT]
    assert [value.dtype for value in model.graph.outputs] == [kind, ir.DataType.FLOAT]
    assert [value.name for value in model.graph.outputs] == ["kept", "y"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_cache_is_narrow_also_where_its_maker_is_not():
    model = _graph_of(
        """wide (float[1, 4] old) => (float[1, 4] kept) {
            kept = Mul (old, old)
        }"""
    )
    lower_tensorrt(model, (), None, magnitudes={"old": 1e9, "kept": 1e9}, narrow_ends={"old", "kept"})
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [ir.DataType.FLOAT16] * 2
    assert _count(model, "Cast") == 2
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
