import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.gather_integers import gather_integers
from exporter.passes.spell_out_int4 import spell_out_int4
from exporter.passes.store_integers import store_integers
from exporter.passes.unsigned_weights import make_unsigned
from exporter.passes.untie_weights import untie_weights
from tests.unit.exporter.passes.graphs import kinds, run


def _model(text, **arrays):
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantised_weights_are_stored_as_the_integers_they_become(dtype):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((6, 4)).astype(np.float32)
    scale = np.array([0.5, 0.01, 0.02, 0.001], np.float32)
    zero = np.full(4, 3 if dtype == np.uint8 else 0, dtype)
    text = """g (float[n, 6] x) => (float[n, 4] y) {
      q = QuantizeLinear<axis=1>(w, s, z)
      d = DequantizeLinear<axis=1>(q, s, z)
      y = MatMul(x, d) }"""
    model = _model(text, w=weight, s=scale, z=zero)
    feeds = {"x": generator.standard_normal((3, 6)).astype(np.float32)}
    expected = run(model, feeds)
    assert store_integers(model) == 1
    assert kinds(model) == ["DequantizeLinear", "MatMul"]
    assert "w" not in model.graph.initializers
    np.testing.assert_array_equal(run(model, feeds), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_of_four_bits_are_stored_in_half_a_byte_each(axis):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((32, 64)).astype(np.float32)
    scale = generator.uniform(0.1, 0.3, (2, 64) if axis == 0 else (32, 4)).astype(np.float32)
    text = f"""g (float[n, 32] x) => (float[n, 64] y) {{
      q = QuantizeLinear<axis={axis}, block_size=16, output_dtype=22>(w, s)
      d = DequantizeLinear<axis={axis}, block_size=16>(q, s)
      y = MatMul(x, d) }}"""
    model = _model(text, w=weight, s=scale)
    feeds = {"x": np.eye(32, dtype=np.float32)}
    assert store_integers(model) == 1
    (stored,) = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT4]
    assert stored.const_value.nbytes == 32 * 64 // 2
    wide = np.repeat(scale, 16, axis=axis)
    expected = np.clip(np.rint(weight / wide), -8, 7) * wide
    np.testing.assert_allclose(run(model, feeds), expected, atol=0.02)


def test_a_table_of_integers_is_looked_up_as_integers():
    generator = np.random.default_rng(0)
    table = generator.integers(-128, 128, (9, 4)).astype(np.int8)
    scale = generator.uniform(0.1, 0.3, 9).astype(np.float32)
    text = """g (int64[b, s] ids) => (float[b, s, 4] rows) {
      d = DequantizeLinear<axis=0>(table, s0, z)
      rows = Gather<axis=0>(d, ids) }"""
    model = _model(text, table=table, s0=scale, z=np.zeros(9, np.int8))
    feeds = {"ids": np.array([[0, 8, 3]])}
    expected = run(model, feeds)
    assert gather_integers(model) == 1
    assert kinds(model) == ["Cast", "Gather", "Gather", "Mul"]
    np.testing.assert_array_equal(run(model, feeds), expected)
    assert gather_integers(model) == 0


def test_a_table_of_four_bits_is_looked_up_as_it_is_stored():
    generator = np.random.default_rng(0)
    table = generator.standard_normal((9, 64)).astype(np.float32)
    scale = generator.uniform(0.1, 0.3, (9, 2)).astype(np.float32)
    text = """g (int64[b, s] ids) => (float[b, s, 64] rows) {
      q = QuantizeLinear<axis=1, block_size=32, output_dtype=22>(table, s0)
      d = DequantizeLinear<axis=1, block_size=32>(q, s0)
      rows = Gather<axis=0>(d, ids) }"""
    model = _model(text, table=table, s0=scale)
    feeds = {"ids": np.array([[0, 8, 3]])}
    expected = run(model, feeds)
    store_integers(model)
    assert gather_integers(model) == 1
    assert kinds(model) == ["GatherBlockQuantized"]
    np.testing.assert_array_equal(run(model, feeds), expected)


@pytest.mark.parametrize(
    "nodes",
    [
        "d = DequantizeLinear<axis=1>(table, s1, z1) rows = Gather<axis=0>(d, ids)",
        "d = DequantizeLinear<axis=0>(table, s0, z) rows = Gather<axis=0>(d, ids)",
        "d = DequantizeLinear<axis=0>(table, s0, z0) rows = Gather<axis=1>(d, ids)",
        "d = DequantizeLinear<axis=0>(table, s0, zi) rows = Gather<axis=0>(d, ids)",
        "d = DequantizeLinear<axis=1, block_size=16>(wide, s2) rows = Gather<axis=0>(d, ids)",
        "d = DequantizeLinear<axis=0>(table, half) rows = Gather<axis=0>(d, ids)",
    ],
    ids=["scales of columns", "zero points", "another axis", "fed zero points", "blocks of bytes", "half scales"],
)
def test_other_tables_stay_as_they_are(nodes):
    text = f"g (int64[b, s] ids, int8[4] zi) => (float[b, s, c] rows) {{ {nodes} }}"
    arrays = {
        "wide": np.ones((4, 32), np.int8),
        "s2": np.ones((4, 2), np.float32),
        "half": np.ones(4, np.float16),
        "table": np.ones((4, 4), np.int8),
        "s0": np.ones(4, np.float32),
        "s1": np.ones(4, np.float32),
        "z": np.ones(4, np.int8),
        "z0": np.zeros(4, np.int8),
        "z1": np.zeros(4, np.int8),
    }
    assert gather_integers(_model(text, **arrays)) == 0


def test_activations_are_still_quantised_in_the_graph():
    text = """g (float[n, 6] x) => (float[n, 6] y) {
      q = QuantizeLinear(x, s, z)
      y = DequantizeLinear(q, s, z) }"""
    model = _model(text, s=np.array(0.1, np.float32), z=np.array(0, np.int8))
    assert store_integers(model) == 0


def test_a_transposed_embedding_becomes_a_weight_of_its_own():
    table = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    text = """g (int64[b, s] ids) => (float[b, s, 9] logits) {
      rows = Gather<axis=0>(table, ids)
      turned = Transpose<perm=[1, 0]>(table)
      logits = MatMul(rows, turned) }"""
    model = _model(text, table=table)
    feeds = {"ids": np.array([[0, 8, 3]])}
    expected = run(model, feeds)
    assert untie_weights(model) == 1
    assert kinds(model) == ["Gather", "MatMul"]
    np.testing.assert_array_equal(run(model, feeds), expected)
    assert untie_weights(model) == 0


@pytest.mark.parametrize("zero", [None, np.array([0, 0, 0, 5], np.int8)])
def test_signed_weights_become_unsigned_with_the_same_values(zero):
    generator = np.random.default_rng(0)
    stored = generator.integers(-128, 128, (6, 4)).astype(np.int8)
    scale = np.array([0.5, 0.01, 0.02, 0.001], np.float32)
    inputs = "w, s" if zero is None else "w, s, z"
    text = f"""g (float[n, 6] x) => (float[n, 4] y) {{
      d = DequantizeLinear<axis=1>({inputs})
      y = MatMul(x, d) }}"""
    model = _model(text, w=stored, s=scale, **({} if zero is None else {"z": zero}))
    feeds = {"x": generator.standard_normal((3, 6)).astype(np.float32)}
    expected = run(model, feeds)
    assert make_unsigned(model) == 1
    assert not [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    np.testing.assert_array_equal(run(model, feeds), expected)
    assert make_unsigned(model) == 0


def test_blocks_of_signed_weights_become_unsigned_with_their_scales():
    generator = np.random.default_rng(0)
    stored = generator.integers(-128, 128, (32, 4)).astype(np.int8)
    text = """g (float[n, 32] x) => (float[n, 4] y) {
      d = DequantizeLinear<axis=0, block_size=16>(w, s)
      y = MatMul(x, d) }"""
    model = _model(text, w=stored, s=generator.uniform(0.1, 0.3, (2, 4)).astype(np.float32))
    feeds = {"x": generator.standard_normal((3, 32)).astype(np.float32)}
    expected = run(model, feeds)
    assert make_unsigned(model) == 1
    np.testing.assert_array_equal(run(model, feeds), expected)


def test_signed_weights_whose_zero_point_is_fed_stay():
    text = """g (float[n, 6] x, int8 z) => (float[n, 4] y) {
      d = DequantizeLinear(w, s, z)
      y = MatMul(x, d) }"""
    model = _model(text, w=np.ones((6, 4), np.int8), s=np.array(0.1, np.float32))
    assert make_unsigned(model) == 0


@pytest.mark.parametrize(
    ("change", "nodes"),
    [
        (untie_weights, "kept = Transpose<perm=[1, 0]>(w)  y = MatMul(x, kept)"),
        (store_integers, "kept = QuantizeLinear(w, s, z)  d = DequantizeLinear(kept, s, z)  y = Gemm<transB=1>(x, d)"),
        (spell_out_int4, "kept = DequantizeLinear(i4, s)  y = Gemm<transB=1>(x, kept)"),
    ],
)
def test_what_the_graph_gives_out_stays(change, nodes):
    model = _model(
        f"g (float[n, 6] x) => (float[n, 4] y) {{ {nodes} }}",
        w=np.ones((4, 6), np.float32),
        i4=np.ones((4, 6), ir.DataType.INT4.numpy()),
        s=np.array(0.1, np.float32),
        z=np.array(0, np.int8),
    )
    (kept,) = [value for node in model.graph for value in node.outputs if value.name == "kept"]
    model.graph.outputs.append(kept)
    assert change(model) == 0
