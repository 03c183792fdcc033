"""Every lowering against a numpy oracle of what its integers mean."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from calibration.linears import find_linears
from calibration.lower.fold_smoothing import fold_smoothing
from calibration.lower.onnxruntime.dynamic import lower_dynamic
from calibration.lower.onnxruntime.embedding import SMALLEST_TABLE, lower_embeddings
from calibration.lower.onnxruntime.static import lower_static
from calibration.lower.onnxruntime.weight_only import lower_weight_only
from calibration.plan import ActivationGroup, LinearPlan, Plan
from calibration.quantise import quantise_weight
from exporter.passes.attention import compose_attention, flatten_attention
from tests.unit.exporter.passes.graphs import HIDDEN, attention_model, padded_feeds, run, run_all

DEPTH, WIDTH = 64, 48


def _model(*, readers=1):
    """``readers`` biased linears over one input [batch, sequence, 64]."""
    outputs = ", ".join(f"float[b, s, {WIDTH}] y{i}" for i in range(readers))
    body = "".join(f" m{i} = MatMul(x, w{i})\n y{i} = Add(m{i}, b{i})\n" for i in range(readers))
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 23]> g (float[b, s, {DEPTH}] x) => ({outputs}) {{ {body} }}'
    )
    generator = np.random.default_rng(0)
    for i in range(readers):
        for name, shape in ((f"w{i}", (DEPTH, WIDTH)), (f"b{i}", (WIDTH,))):
            array = generator.standard_normal(shape).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _feeds(seed=1):
    return {"x": np.random.default_rng(seed).standard_normal((2, 7, DEPTH)).astype(np.float32)}


def _run(model, feeds):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _weights(model, index=0):
    return tuple(model.graph.initializers[f"{n}{index}"].const_value.numpy() for n in "wb")


def _dynamic_oracle(x, weight, bias, bits):
    """uint8 activations by the range of the tensor (ONNX DynamicQuantizeLinear), int8 weights, exact integer sums."""
    low, high = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
    scale = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.rint(-low / scale), 0, 255)
    integers = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    values, steps, _ = quantise_weight(weight, axis=1, bits=bits)
    return integers.astype(np.int64) @ values.astype(np.int64) * (scale * steps.astype(np.float64)) + bias


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("readers", [1, 3])
def test_dynamic_computes_what_its_integers_mean(bits, readers):
    model = _model(readers=readers)
    expected = [_dynamic_oracle(_feeds()["x"], *_weights(model, i), bits) for i in range(readers)]
    lower_dynamic(model, find_linears(model), weight_bits=bits)
    assert {node.op_type for node in model.graph}.isdisjoint({"MatMul", "Add"})
    for got, want in zip(_run(model, _feeds()), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_dynamic_quantises_a_shared_activation_once():
    model = _model(readers=3)
    lower_dynamic(model, find_linears(model), weight_bits=8)
    assert sum(node.op_type == "DynamicQuantizeLinear" for node in model.graph) == 1


def test_seven_bit_weights_cannot_saturate_sixteen_bits():
    model = _model()
    lower_dynamic(model, find_linears(model), weight_bits=7)
    (stored,) = [v.const_value.numpy() for n, v in model.graph.initializers.items() if n == "w0_q7"]
    assert 255 * int(np.abs(stored).max()) * 2 < 2**15


def test_layers_not_named_stay_in_float():
    model = _model(readers=2)
    linears = find_linears(model)
    lower_dynamic(model, linears[:1], weight_bits=8)
    assert sum(node.op_type == "MatMul" for node in model.graph) == 1


def _plan(model, *, dtype, smooth=None, bits=8):
    group = ActivationGroup(
        tensor="x", linears=tuple(linear.node for linear in find_linears(model)), smooth=smooth, scale=0.03,
        zero_point=120 if dtype == "uint8" else 0, dtype=dtype, bits=8, method="minmax", why="test", error=0.0,
    )  # fmt: skip
    entries = []
    for index, linear in enumerate(find_linears(model)):
        weight, _ = _weights(model, index)
        weight = weight if smooth is None else weight * smooth[:, None]
        _, scale, _ = quantise_weight(weight, axis=1, bits=bits)
        delta = np.full(WIDTH, 0.25, np.float32)
        entries.append(
            LinearPlan(node=linear.node, weight=linear.weight, weight_scale=scale, weight_zero_point=0,
                       weight_bits=bits, bias_delta=delta, error=0.0, why="test")
        )  # fmt: skip
    return Plan(groups=(group,), linears=tuple(entries))


def _static_oracle(x, weight, bias, plan, index):
    group, entry = plan.groups[0], plan.linears[index]
    if group.smooth is not None:
        x, weight = x * (1 / group.smooth).astype(np.float32), weight * group.smooth[:, None]
    low, high = (0, 255) if group.dtype == "uint8" else (-128, 127)
    integers = np.clip(np.rint(x / np.float32(group.scale)) + group.zero_point, low, high) - group.zero_point
    top = 2 ** (entry.weight_bits - 1) - 1
    values = np.clip(np.rint(weight / entry.weight_scale), -top, top)
    steps = np.float64(np.float32(group.scale)) * entry.weight_scale
    return integers.astype(np.int64) @ values.astype(np.int64) * steps + bias + entry.bias_delta


@pytest.mark.parametrize("form", ["integer", "qdq"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("smoothed", [False, True])
def test_static_computes_what_its_integers_mean(form, dtype, smoothed):
    model = _model(readers=2)
    smooth = np.exp(np.random.default_rng(3).standard_normal(DEPTH)).astype(np.float32) if smoothed else None
    plan = _plan(model, dtype=dtype, smooth=smooth, bits=7)
    expected = [_static_oracle(_feeds()["x"], *_weights(model, i), plan, i) for i in range(2)]
    lower_static(model, find_linears(model), plan, form=form)
    for got, want in zip(_run(model, _feeds()), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_qdq_form_is_standard_onnx():
    model = _model()
    lower_static(model, find_linears(model), _plan(model, dtype="int8"), form="qdq")
    assert {node.domain for node in model.graph} == {""}
    onnx.checker.check_model(ir.to_proto(model))


def test_static_quantises_a_shared_activation_once():
    model = _model(readers=3)
    lower_static(model, find_linears(model), _plan(model, dtype="uint8"), form="integer")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph) == 1


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 100), (4, 1 / 6)])
def test_weight_only_is_as_near_as_its_bits(bits, step):
    model = _model()
    (expected,) = _run(model, _feeds())
    lower_weight_only(model, find_linears(model), bits=bits)
    (got,) = _run(model, _feeds())
    assert np.abs(got - expected).max() < step * np.sqrt(DEPTH) * 3
    assert np.abs(got - expected).max() > 0


def _embedding_model(rows, *, tied=False):
    output = f"float[b, s, {rows}] logits" if tied else f"float[b, s, {DEPTH}] y"
    end = "turned = Transpose<perm=[1, 0]>(table)\n logits = MatMul(y, turned)" if tied else ""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 23]> g (int64[b, s] ids) => ({output}) '
        f"{{ y = Gather<axis=0>(table, ids)\n {end} }}"
    )
    table = np.random.default_rng(0).standard_normal((rows, DEPTH)).astype(np.float32)
    table *= np.linspace(0.01, 10, rows, dtype=np.float32)[:, None]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    proto.graph.node[0].name = "gather"
    return ir.from_proto(proto), table


def test_embedding_rows_keep_their_own_range():
    rows = SMALLEST_TABLE // DEPTH
    model, table = _embedding_model(rows)
    assert lower_embeddings(model) == 1
    (got,) = _run(model, {"ids": np.array([[0, 5, rows - 1]])})
    wanted = table[[0, 5, rows - 1]]
    assert np.all(np.abs(got[0] - wanted) <= np.abs(wanted).max(axis=1, keepdims=True) / 127 / 2 * 1.001)


@pytest.mark.parametrize(("rows", "tied"), [(4, False), (SMALLEST_TABLE // DEPTH, True)])
def test_small_and_tied_tables_stay_in_float(rows, tied):
    model, _ = _embedding_model(rows, tied=tied)
    assert lower_embeddings(model) == 0
    assert "Gather" in {node.op_type for node in model.graph}


def _attention_plan():
    """Flat attention, and a plan that smooths its output."""
    model = attention_model(decomposed=True)
    compose_attention(model)
    flatten_attention(model)
    linears = {linear.activation: linear for linear in find_linears(model)}
    smooth = np.exp(np.random.default_rng(0).standard_normal(HIDDEN)).astype(np.float32)
    reader = linears["joined"]
    group = ActivationGroup(
        tensor="joined", linears=(reader.node,), smooth=smooth, scale=0.02, zero_point=0, dtype="int8", bits=8,
        method="minmax", why="test", error=0.0,
    )  # fmt: skip
    entries = tuple(
        LinearPlan(node=linear.node, weight=linear.weight, weight_scale=np.ones(HIDDEN, np.float32),
                   weight_zero_point=0, weight_bits=8, bias_delta=None, error=0.0, why="test")
        for linear in find_linears(model)
    )  # fmt: skip
    return model, Plan(groups=(group,), linears=entries), smooth


def test_smoothing_of_attention_moves_into_the_value_projection():
    model, plan, smooth = _attention_plan()
    expected = run(model, padded_feeds())
    folded = fold_smoothing(model, plan)
    assert folded.groups[0].smooth is None
    value = next(entry for entry in folded.linears if entry.weight == "v_w")
    np.testing.assert_allclose(value.weight_scale, 1 / smooth)
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-5)


def _read_joined_twice(model):
    value = next(node for node in model.graph if node.op_type == "Attention").outputs[0]
    again = ir.node("Neg", [value])
    model.graph.append(again)
    model.graph.outputs.append(again.outputs[0])
    again.outputs[0].name, again.outputs[0].type = "again", value.type


def _read_weight_twice(model):
    weight = next(node for node in model.graph if len(node.inputs) > 1 and node.inputs[1].name == "out_w").inputs[1]
    again = ir.node("Neg", [weight])
    model.graph.append(again)
    model.graph.outputs.append(again.outputs[0])
    again.outputs[0].name, again.outputs[0].type = "again", weight.type


def _show_values(model):
    attention = next(node for node in model.graph if node.op_type == "Attention")
    model.graph.outputs.append(attention.inputs[2])


@pytest.mark.parametrize("share", [_read_joined_twice, _read_weight_twice, _show_values])
def test_smoothing_stays_a_product_where_something_else_reads_what_it_would_change(share):
    model, plan, _ = _attention_plan()
    share(model)
    expected = run_all(model, padded_feeds())
    assert fold_smoothing(model, plan).groups[0].smooth is not None
    for got, want in zip(run_all(model, padded_feeds()), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def _graph_of(text, **arrays):
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _shared_model():
    """Two layers, as in ALBERT: one weight, two biases, two activations of different ranges."""
    text = f"""g (float[b, s, {DEPTH}] x) => (float[b, s, {DEPTH}] y) {{
      m0 = MatMul(x, w)
      a0 = Add(m0, b0)
      r = Relu(a0)
      m1 = MatMul(r, w)
      y = Add(m1, b1) }}"""
    return _graph_of(text, w=_draw(DEPTH, DEPTH), b0=_draw(DEPTH, seed=1), b1=10 * _draw(DEPTH, seed=2))


def _plan_linears(model, smooths):
    """Each linear with a smoothing of its own; what the first reads is normal, what the second reads is wider."""
    groups, entries = [], []
    for linear, smooth, scale in zip(find_linears(model), smooths, (0.04, 0.4), strict=True):
        groups.append(
            ActivationGroup(tensor=linear.activation, linears=(linear.node,), smooth=smooth, scale=scale,
                            zero_point=128, dtype="uint8", bits=8, method="minmax", why="test", error=0.0)
        )  # fmt: skip
        weight = model.graph.initializers[linear.weight].const_value.numpy()
        _, steps, _ = quantise_weight(weight if smooth is None else weight * smooth[:, None], axis=1)
        entries.append(
            LinearPlan(node=linear.node, weight=linear.weight, weight_scale=steps, weight_zero_point=0, weight_bits=8,
                       bias_delta=None, error=0.0, why="test")
        )  # fmt: skip
    return Plan(groups=tuple(groups), linears=tuple(entries))


@pytest.mark.parametrize("lower", [
    lambda model: lower_dynamic(model, find_linears(model), weight_bits=8),
    lambda model: lower_weight_only(model, find_linears(model), bits=8),
])  # fmt: skip
def test_linears_that_share_a_weight_keep_their_own_biases(lower):
    model = _shared_model()
    (expected,) = _run(model, _feeds())
    lower(model)
    (got,) = _run(model, _feeds())
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())
    assert sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.uses()) < 1.5 * DEPTH * DEPTH


def test_linears_that_share_a_weight_keep_their_own_smoothing():
    model = _shared_model()
    smooths = [None, np.exp(_draw(DEPTH, seed=6) / 2)]
    (expected,) = _run(model, _feeds())
    lower_static(model, find_linears(model), _plan_linears(model, smooths), form="qdq")
    (got,) = _run(model, _feeds())
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("biased", [False, True])
def test_a_linear_that_feeds_another_is_lowered_too(biased):
    """Two factors of a low-rank layer, with nothing between them."""
    text = f"""g (float[b, s, {DEPTH}] x) => (float[b, s, {WIDTH}] y) {{
      m = MatMul(x, down)
      {"a = Add(m, c)" if biased else ""}
      y = MatMul({"a" if biased else "m"}, up) }}"""
    arrays = {"down": _draw(DEPTH, 8), "up": _draw(8, WIDTH, seed=1), **({"c": _draw(8, seed=2)} if biased else {})}
    for lower in (
        lambda model: lower_dynamic(model, find_linears(model), weight_bits=8),
        lambda model: lower_weight_only(model, find_linears(model), bits=8),
        lambda model: lower_static(model, find_linears(model), _plan_linears(model, [None, None]), form="integer"),
    ):
        model = _graph_of(text, **arrays)
        (expected,) = _run(model, _feeds())
        lower(model)
        assert "MatMul" not in {node.op_type for node in model.graph}
        (got,) = _run(model, _feeds())
        assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.99
