"""Root mean square norms become one operator, with the addition before them, and compute what they did."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from exporter.passes.rms_norm import fuse_rms_norm

DEPTH, EPSILON = 6, 1e-3


def spell_out(name, value, output, *, weight="w", axis="last", two="two"):
    return f"""
    {name}p = Pow({value}, {two})
    {name}m = ReduceMean <keepdims = 1> ({name}p, {axis})
    {name}a = Add({name}m, epsilon)
    {name}s = Sqrt({name}a)
    {name}r = Reciprocal({name}s)
    {name}x = Mul({value}, {name}r)
    {output} = Mul({weight}, {name}x)
    """


def make(body, outputs="float[n, s, 6] y", inputs="float[n, s, 6] a, float[n, s, 6] b"):
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    generator = np.random.default_rng(0)
    constants = {
        "two": np.float32(2),
        "three": np.float32(3),
        "epsilon": np.float32(EPSILON),
        "last": np.array([-1]),
        "first": np.array([0]),
        "w": generator.standard_normal(DEPTH).astype(np.float32),
        "v": generator.standard_normal(DEPTH).astype(np.float32),
        "one": np.array([0.5], np.float32),
    }
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def run(model):
    generator = np.random.default_rng(1)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {one.name: generator.standard_normal((2, 3, DEPTH)).astype(np.float32) for one in session.get_inputs()}
    return session.run(None, feeds)


def kinds(model):
    return [node.op_type for node in model.graph]


def check_same(model, expected):
    for got, wanted in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_what_is_fed_is_normalised_by_one_operator():
    model = make(spell_out("n", "a", "y"), inputs="float[n, s, 6] a")
    expected = run(model)
    assert fuse_rms_norm(model) == 1
    assert kinds(model) == ["SimplifiedLayerNormalization"]
    check_same(model, expected)


def test_the_addition_before_it_goes_in_and_its_sum_stays_there_for_others():
    model = make(f"t = Add(a, b) {spell_out('n', 't', 'y')} z = Neg(t)", "float[n, s, 6] y, float[n, s, 6] z")
    expected = run(model)
    assert fuse_rms_norm(model) == 1
    assert kinds(model) == ["SkipSimplifiedLayerNormalization", "Neg"]
    check_same(model, expected)


def test_two_norms_of_one_sum_add_it_once():
    both = spell_out("n", "t", "y") + spell_out("k", "t", "z", weight="v")
    model = make(f"t = Add(a, b) {both}", "float[n, s, 6] y, float[n, s, 6] z")
    expected = run(model)
    assert fuse_rms_norm(model) == 2
    assert sorted(kinds(model)) == ["SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"]
    check_same(model, expected)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        (f"t = Add(a, b) {spell_out('n', 't', 'y')}", "float[n, s, 6] a, float[6] b"),
        (f"t = Add(a, w) {spell_out('n', 't', 'y')}", "float[n, s, 6] a"),
    ],
    ids=["another shape", "a constant"],
)
def test_an_addition_that_is_no_residual_stays(body, inputs):
    model = make(body, inputs=inputs)
    assert fuse_rms_norm(model) == 1
    assert kinds(model) == ["Add", "SimplifiedLayerNormalization"]


def test_a_sum_that_the_model_gives_stays_apart():
    model = make(f"t = Add(a, b) {spell_out('n', 't', 'y')}", "float[n, s, 6] y, float[n, s, 6] t")
    expected = run(model)
    assert fuse_rms_norm(model) == 1
    assert kinds(model) == ["Add", "SimplifiedLayerNormalization"]
    check_same(model, expected)


@pytest.mark.parametrize(
    "changed", [{"axis": "first"}, {"two": "three"}, {"weight": "one"}, {"weight": "b"}], ids=lambda one: str(one)
)
def test_what_is_no_such_norm_stays(changed):
    model = make(spell_out("n", "a", "y", **changed))
    before = kinds(model)
    assert fuse_rms_norm(model) == 0
    assert kinds(model) == before


def test_a_norm_whose_mean_another_reads_stays():
    model = make(f"{spell_out('n', 'a', 'y')} z = Neg(nm)", "float[n, s, 6] y, float[n, s, 1] z")
    assert fuse_rms_norm(model) == 0
