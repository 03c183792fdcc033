import numpy as np
import onnx
import onnx_ir as ir

from exporter.passes.merge_linears import merge_linears
from tests.unit.exporter.passes.graphs import attention_model, kinds, padded_feeds, run, run_all


def test_query_key_and_value_become_one_product():
    model = attention_model(decomposed=True)
    expected = run(model, padded_feeds())
    products = kinds(model).count("MatMul")
    assert merge_linears(model) == 1
    assert kinds(model).count("MatMul") == products - 2
    assert kinds(model).count("Split") == 1
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-6)


def test_the_values_keep_their_names():
    model = attention_model(decomposed=True)
    merge_linears(model)
    (split,) = [node for node in model.graph if node.op_type == "Split"]
    assert [value.name for value in split.outputs] == ["q_a", "k_a", "v_a"]


def test_linears_of_uneven_width_merge_too():
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 23]>
    g (float[n, 4] x) => (float[n, 3] a, float[n, 2] b) {
       am = MatMul(x, aw)
       a = Add(am, ab)
       bm = MatMul(x, bw)
       b = Add(bb, bm)
    }""")
    generator = np.random.default_rng(0)
    for name, shape in {"aw": (4, 3), "ab": (3,), "bw": (4, 2), "bb": (2,)}.items():
        array = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    feeds = {"x": generator.standard_normal((3, 4)).astype(np.float32)}
    expected = run_all(model, feeds)
    assert merge_linears(model) == 1
    for got, want in zip(run_all(model, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_single_linear_is_left_alone():
    model = attention_model(decomposed=True)
    merge_linears(model)
    assert merge_linears(model) == 0


def test_layers_that_share_their_weights_share_the_merged_one():
    """ALBERT: the same query and key in every layer."""
    body = "".join(
        f"q{i}m = MatMul(x{i}, qw)\n q{i} = Add(q{i}m, qb)\n k{i}m = MatMul(x{i}, kw)\n k{i} = Add(k{i}m, kb)\n"
        f"x{i + 1} = Mul(q{i}, k{i})\n"
        for i in range(3)
    )
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 23]> g (float[n, 4] x0) => (float[n, 4] x3) {{ {body} }}'
    )
    generator = np.random.default_rng(0)
    for name, shape in {"qw": (4, 4), "qb": (4,), "kw": (4, 4), "kb": (4,)}.items():
        array = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    model = ir.from_proto(proto)
    feeds = {"x0": generator.standard_normal((3, 4)).astype(np.float32)}
    expected = run(model, feeds)
    assert merge_linears(model) == 3
    assert sum(value.const_value.shape == [4, 8] for value in model.graph.initializers.values()) == 1
    np.testing.assert_allclose(run(model, feeds), expected, rtol=1e-5)
