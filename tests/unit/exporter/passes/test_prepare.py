"""What every foreign graph goes through first."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.prepare import name_nodes, prepare
from tests.unit.exporter.passes.graphs import run_all


def _prepare(text, domain=""):
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["{domain}" : 21]> {text}'))
    before = ir.from_proto(ir.to_proto(model))
    prepare(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return before, model


def _list_operators(model):
    return [node.op_type for node in model.graph.all_nodes()]


def test_an_identity_says_nothing():
    _, model = _prepare("g (float[2, 4] x) => (float[2, 4] y) { h = Identity(x)\n r = Relu(h)\n y = Identity(r) }")
    assert _list_operators(model) == ["Relu"]
    assert [value.name for value in model.graph.outputs] == ["y"]


@pytest.mark.parametrize("take", [True, False])
def test_a_branch_may_give_a_value_from_outside(take):
    before, model = _prepare("""
        g (float[2, 4] x, bool take) => (float[2, 4] y) {
            h = Relu(x)
            y = If (take) <then_branch = t () => (float[2, 4] a) { a = Identity(h) },
                           else_branch = e () => (float[2, 4] b) { i = Identity(h)
                                                                  b = Neg(i) }>
        }""")
    assert _list_operators(model).count("Identity") == 1
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4) - 4, "take": np.array(take)}
    np.testing.assert_array_equal(run_all(model, feeds), run_all(before, feeds))


def test_one_value_under_two_names_stays_two_outputs():
    before, model = _prepare(
        "g (float[2, 4] x) => (float[2, 4] y, float[2, 4] z) { h = Relu(x)\n y = Identity(h)\n z = Identity(h) }"
    )
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    feeds = {"x": np.arange(8, dtype=np.float32).reshape(2, 4) - 4}
    np.testing.assert_array_equal(run_all(model, feeds), run_all(before, feeds))


def test_the_default_operator_set_has_one_name():
    _, model = _prepare("g (float[2, 4] x) => (float[2, 4] y) { y = Relu(x) }", domain="ai.onnx")
    assert dict(model.graph.opset_imports) == {"": 21}


def test_no_two_nodes_have_one_name_whatever_graph_they_are_in():
    _, model = _prepare("""
        g (float[2, 4] x, bool take) => (float[2, 4] y) {
            h = Relu(x)
            z = If (take) <then_branch = t () => (float[2, 4] a) { a = Neg(h) },
                           else_branch = e () => (float[2, 4] b) { i = Abs(h)
                                                                  b = Neg(i) }>
            y = Relu(z)
        }""")
    name_nodes(model)
    names = [node.name for node in model.graph.all_nodes()]
    assert len(set(names)) == len(names) == 6
