"""Pairs that stop fusion: behind products, and on one side of an operator."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exporter.lint.check_file import fix_file, lint_file
from tests.unit.exporter.lint.quantised_graphs import K, N, node, save, save_linear


def _rules(path):
    return sorted({item.rule for item in lint_file(path, "tensorrt")})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def _fix(path):
    fixed = fix_file(path, path.with_name("fixed.onnx"), "tensorrt")
    onnx.checker.check_model(path.with_name("fixed.onnx"), full_check=True)
    return fixed


def test_a_quantised_output_is_passed_by_and_comes_nearer_to_float(path):
    after = [
        node("QuantizeLinear", ["y0", "os", "z"], "oq"),
        node("DequantizeLinear", ["oq", "os", "z"], "od"),
        node("Sigmoid", ["od"], "y"),
    ]
    save_linear(path, after=after, arrays={"os": np.array(0.5, np.float32)})
    assert _rules(path) == ["output-pair"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > row.before for row in fixed.proof)


def test_a_quantised_output_of_the_graph_is_given_as_it_was_computed(path):
    after = [node("QuantizeLinear", ["y0", "os", "z"], "oq"), node("DequantizeLinear", ["oq", "os", "z"], "y")]
    save_linear(path, after=after, arrays={"os": np.array(0.5, np.float32)})
    (found,) = lint_file(path, "tensorrt")
    assert (found.rule, found.fixable) == ("output-pair", True)
    assert "for the graph's output" in found.what
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.output == "y" and row.after > row.before for row in fixed.proof)


def test_a_pair_before_an_operator_that_gives_float_is_passed_by(path):
    after = [
        node("Sigmoid", ["y0"], "g"),
        node("QuantizeLinear", ["g", "os", "z"], "oq"),
        node("DequantizeLinear", ["oq", "os", "z"], "od"),
        node("Exp", ["od"], "y"),
    ]
    save_linear(path, after=after, arrays={"os": np.array(0.01, np.float32)})
    assert _rules(path) == ["one-sided"]
    assert _fix(path).left == ()


def test_an_operator_that_computes_in_float_gains_nothing_from_pairs_on_both_sides(path):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(0, np.int8), "p": np.array(0.005, np.float32),
        "w": np.ones((K, N), np.int8), "ws": np.full(N, 0.1, np.float32), "wz": np.zeros(N, np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("Softmax", ["d"], "soft"),
        node("QuantizeLinear", ["soft", "p", "z"], "sq"),
        node("DequantizeLinear", ["sq", "p", "z"], "sd"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=1),
        node("MatMul", ["sd", "wd"], "y"),
    ]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays)
    assert [(item.rule, item.node) for item in lint_file(path, "tensorrt")] == [("one-sided", "n_d")]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"one-sided": 1}, ())


def test_a_node_without_a_name_goes_by_what_it_gives(path):
    save_linear(path, after=[node("Sigmoid", ["y0"], "g"), node("QuantizeLinear", ["g", "s", "z"], "gq"),
                             node("DequantizeLinear", ["gq", "s", "z"], "gd"), node("Exp", ["gd"], "y")])  # fmt: skip
    proto = onnx.load(path)
    for found in proto.graph.node:
        found.name = ""
    onnx.save(proto, path)
    (found,) = lint_file(path, "tensorrt")
    assert (found.node, found.what) == ("DequantizeLinear of gd", "Exp of y reads int8 and gives float")


def test_an_addition_between_two_pairs_does_not_excuse_the_one_behind_the_product(path):
    after = [
        node("QuantizeLinear", ["y0", "os", "z"], "oq"),
        node("DequantizeLinear", ["oq", "os", "z"], "od"),
        node("Relu", ["od"], "r"),
        node("QuantizeLinear", ["r", "os", "z"], "rq"),
        node("DequantizeLinear", ["rq", "os", "z"], "rd"),
        node("Exp", ["rd"], "y"),
    ]
    save_linear(path, after=after, arrays={"os": np.array(0.5, np.float32)})
    assert _rules(path) == ["one-sided", "output-pair"]
    assert _fix(path).left == ()


def test_the_input_pair_of_the_next_product_is_no_output_pair(path):
    after = [
        node("QuantizeLinear", ["y0", "os", "z"], "oq"),
        node("DequantizeLinear", ["oq", "os", "z"], "od"),
        node("DequantizeLinear", ["v", "vs", "vz"], "vd", axis=1),
        node("MatMul", ["od", "vd"], "y"),
    ]
    arrays = {
        "os": np.array(0.5, np.float32),
        "v": np.ones((N, N), np.int8),
        "vs": np.ones(N, np.float32),
        "vz": np.zeros(N, np.int8),
    }
    assert _rules(save_linear(path, after=after, arrays=arrays)) == []
