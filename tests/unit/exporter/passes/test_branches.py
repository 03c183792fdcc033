"""What the passes rewrite, they rewrite in the branches of an If too: a gated layer is one."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.attention import compose_attention, flatten_attention
from exporter.passes.merge_linears import merge_linears
from exporter.passes.padding_mask import shorten_mask
from exporter.passes.prepare import name_nodes, prepare
from exporter.passes.separate_norm import separate_norm
from exporter.passes.spell_out_int4 import spell_out_int4
from exporter.passes.undo_rounding import undo_rounding
from exporter.passes.unsigned_weights import make_unsigned
from tests.unit.exporter.passes.graphs import run

RANDOM = np.random.default_rng(0)
INT8 = RANDOM.integers(-127, 128, (8, 8)).astype(np.int8)
SCALE = RANDOM.uniform(0.01, 0.1, 8).astype(np.float32)
FLOATS = {name: RANDOM.normal(size=(8, 8)).astype(np.float32) for name in ("wq", "wk", "wv")}
BIASES = {name: RANDOM.normal(size=8).astype(np.float32) for name in ("bq", "bk", "bv")}
FEEDS = {
    "x": RANDOM.normal(size=(2, 5, 8)).astype(np.float32),
    "attention_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
}
ATTENTION = """
  cut = Constant <value_ints = [0, 0, 2, 4]> ()
  back = Constant <value_ints = [0, 0, 8]> ()
  pq = MatMul (x, wq)  q3 = Add (pq, bq)
  pk = MatMul (x, wk)  k3 = Add (pk, bk)
  pv = MatMul (x, wv)  v3 = Add (pv, bv)
  q4 = Reshape (q3, cut)  k4 = Reshape (k3, cut)  v4 = Reshape (v3, cut)
  q = Transpose <perm = [0, 2, 1, 3]> (q4)
  k = Transpose <perm = [0, 2, 3, 1]> (k4)
  v = Transpose <perm = [0, 2, 1, 3]> (v4)
  qk = MatMul (q, k)  scaled = Mul (qk, half)  scores = Add (scaled, mask)
  weights = Softmax <axis = -1> (scores)
  mixed = MatMul (weights, v)
  turned = Transpose <perm = [0, 2, 1, 3]> (mixed)
  a = Reshape (turned, back)"""


def _gate(branch, otherwise="b = Identity (x)", **arrays):
    """Return a model that runs ``branch`` where something of x is positive, else gives x itself, or ``otherwise``."""
    text = f"""<ir_version: 10, opset_import: ["": 23]>
    g (float[batch, sequence, 8] x, int64[batch, sequence] attention_mask) => (float[batch, sequence, 8] y) {{
      axes = Constant <value_ints = [1, 2]> ()
      keep = Cast <to = 9> (attention_mask)  filled = Where (keep, zero, lowest)  mask = Unsqueeze (filled, axes)
      most = ReduceMax <keepdims = 0> (x)  runs = Greater (most, zero)
      y = If (runs) <then_branch = t () => (float[batch, sequence, 8] a) {{ {branch} }},
                     else_branch = e () => (float[batch, sequence, 8] b) {{ {otherwise} }}> }}"""
    proto = onnx.parser.parse_model(text)
    arrays = {"zero": np.float32(0), "lowest": np.finfo(np.float32).min, "half": np.float32(0.5), **arrays}
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(proto)
    prepare(model)
    return model


def _count(model, op_type):
    return sum(node.op_type == op_type for node in model.graph.all_nodes())


def _require_same(model, before):
    name_nodes(model)
    after = run(model, FEEDS)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    skipped = {**FEEDS, "x": -np.abs(FEEDS["x"])}
    np.testing.assert_array_equal(run(model, skipped), skipped["x"])


def test_attention_in_a_branch_is_one_node_with_the_short_mask_and_merged_linears():
    model = _gate(ATTENTION, **FLOATS, **BIASES)
    before = run(model, FEEDS)
    assert (compose_attention(model), flatten_attention(model)) == (1, 1)
    assert (shorten_mask(model), merge_linears(model)) == (1, 1)
    assert (_count(model, "Attention"), _count(model, "Softmax"), _count(model, "MatMul")) == (1, 0, 1)
    (attention,) = (node for node in model.graph.all_nodes() if node.op_type == "Attention")
    assert attention.graph is not model.graph
    assert attention.inputs[3].producer().graph is model.graph
    _require_same(model, before)


def test_linears_that_read_the_same_in_two_branches_stay_apart():
    one, other = "p = MatMul (x, wq)  a = Add (p, bq)", "p = MatMul (x, wk)  b = Add (p, bk)"
    model = _gate(one, other, **FLOATS, **BIASES)
    before = run(model, FEEDS)
    assert merge_linears(model) == 0
    np.testing.assert_array_equal(run(model, FEEDS), before)


def test_a_mask_that_only_a_branch_makes_stays():
    model = _gate(
        ATTENTION.replace("mask)", "own)").replace("qk =", "own = Add (mask, mask)  qk ="), **FLOATS, **BIASES
    )
    before = run(model, FEEDS)
    assert (compose_attention(model), shorten_mask(model)) == (1, 0)
    _require_same(model, before)


def test_a_norm_in_a_branch_is_kept_apart_from_what_it_reads():
    text = "h = Relu (x)  s = Add (x, h)  a = LayerNormalization <axis = -1> (s, bq)"
    model = _gate(text, **BIASES)
    before = run(model, FEEDS)
    assert separate_norm(model) == 1
    assert (_count(model, "Sum"), _count(model, "Add")) == (1, 0)
    _require_same(model, before)


@pytest.mark.parametrize("change", [make_unsigned, undo_rounding])
def test_integers_of_a_branch(change):
    text = """x8 = QuantizeLinear (x, half, zero8)  r = DequantizeLinear (x8, half, zero8)
      w = DequantizeLinear <axis = 1> (i8, s)  a = MatMul (r, w)"""
    model = _gate(text, i8=INT8, s=SCALE, zero8=np.int8(0))
    rounded = np.rint(FEEDS["x"] / 0.5) * 0.5 if change is make_unsigned else FEEDS["x"]
    before = rounded @ (INT8 * SCALE)
    assert change(model) == 1
    assert not [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8 and v.shape]
    _require_same(model, before)
    assert change(model) == 0


def test_weights_of_four_bits_in_a_branch_are_floats_while_candidates_are_made():
    text = "w = DequantizeLinear <axis = 0, block_size = 4> (i4, s)  a = MatMul (x, w)"
    model = _gate(text, s=RANDOM.uniform(0.1, 0.3, (2, 8)).astype(np.float32))
    packed = ir.tensor(RANDOM.integers(-7, 8, (8, 8)).astype(ir.DataType.INT4.numpy()), name="i4")
    value = ir.Value(name="i4", const_value=packed, shape=packed.shape, type=ir.TensorType(ir.DataType.INT4))
    model.graph.register_initializer(value)
    reader = next(node for node in model.graph.all_nodes() if node.op_type == "DequantizeLinear")
    reader.replace_input_with(0, value)
    before = run(model, FEEDS)
    assert spell_out_int4(model) == 1
    assert _count(model, "DequantizeLinear") == 0
    _require_same(model, before)
