"""Files as they come: functions, branches, weights beside the file, graphs nothing runs; and what fixing refuses."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from exporter.lint.check_file import fix_file, lint_file
from exporter.lint.rule import run_rules
from exporter.lint.tensorrt import RULES
from runtimes.errors import CorruptArtifact, ParityFailure, UnsupportedModel, UsageError
from tests.unit.exporter.lint.quantised_graphs import K, N, draw, node, save, save_linear


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "fixed.onnx"


def _rules(path):
    return sorted({item.rule for item in lint_file(path, "tensorrt")})


def test_rules_have_names_of_their_own():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    empty = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)
    assert run_rules(empty, RULES) == ()


def test_fixing_twice_changes_nothing_more(path, out, tmp_path):
    after = [node("QuantizeLinear", ["y0", "os", "z"], "oq"), node("DequantizeLinear", ["oq", "os", "z"], "y")]
    save_linear(path, kind=np.uint8, zero=100, after=after, arrays={"os": np.array(0.5, np.float32)})
    assert dict(fix_file(path, out, "tensorrt").applied)
    again = fix_file(out, tmp_path / "again.onnx", "tensorrt")
    assert (dict(again.applied), again.left) == ({}, ())


def _save_function(path, opset=21):
    pair = [helper.make_node("QuantizeLinear", ["v", "s", "z"], ["q"], name="pair_q")]
    pair.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["o"], name="pair_d"))
    imports = [helper.make_opsetid("", opset)]
    function = helper.make_function("own", "Round", ["v", "s", "z"], ["o"], pair, imports)
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(128, np.uint8), "w": np.ones((K, N), np.int8),
        "ws": np.full(N, 0.1, np.float32), "wz": np.zeros(N, np.int8),
    }  # fmt: skip
    nodes = [
        node("Round", ["x", "s", "z"], "d", domain="own"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=1),
        node("MatMul", ["d", "wd"], "y"),
    ]
    return save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays, functions=[function])


def test_functions_of_the_model_are_looked_into(path, out):
    found = lint_file(_save_function(path), "tensorrt")
    assert [(item.rule, item.node, item.fixable) for item in found] == [
        ("integer-type", "pair_q", True),
        ("integer-type", "pair_d", True),
    ]
    assert fix_file(path, out, "tensorrt").left == ()
    assert not onnx.load(out).functions


def test_a_function_of_another_operator_set_is_refused(path):
    with pytest.raises(UnsupportedModel, match="cannot be written out") as caught:
        lint_file(_save_function(path, opset=17), "tensorrt")
    assert "inline" in str(caught.value.cure)


def test_branches_are_looked_into(path, out):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(7, np.int8), "w": np.ones((K, N), np.int8),
        "ws": np.full(N, 0.1, np.float32), "wz": np.zeros(N, np.int8),
    }  # fmt: skip
    inner = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("MatMul", ["d", "wd"], "then_y"),
    ]
    branches = {
        "then_branch": (inner, "then_y"),
        "else_branch": ([node("MatMul", ["x", "wd"], "else_y")], "else_y"),
    }
    graphs = {
        name: helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["b", N])])
        for name, (nodes, last) in branches.items()
    }
    nodes = [node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=1), node("If", ["take"], "y", **graphs)]
    inputs = {"x": (TensorProto.FLOAT, ["b", K]), "take": (TensorProto.BOOL, [])}
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays, inputs=inputs)
    found = lint_file(path, "tensorrt")
    assert [(item.rule, item.node, item.fixable) for item in found] == [
        ("zero-point", "n_q", True),
        ("zero-point", "n_d", True),
    ]
    assert fix_file(path, out, "tensorrt").left == ()


def test_weights_lie_beside_a_model_that_one_file_cannot_hold(path, out, tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.trace._INLINE_LIMIT_BYTES", 100)
    save_linear(path, weight_zero=100)
    assert fix_file(path, out, "tensorrt").left == ()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fixed.onnx", "fixed.onnx.data", "model.onnx"]
    assert _rules(out) == []
    with pytest.raises(UsageError, match="the output is the input"):
        fix_file(out, out, "tensorrt")
    out.with_name("fixed.onnx.data").unlink()
    with pytest.raises(CorruptArtifact, match="external data is missing"):
        lint_file(out, "tensorrt")


def test_weights_of_the_input_under_the_name_of_the_outputs_are_not_replaced(path, out):
    proto = onnx.load(save_linear(path, zero=7))
    onnx.save(proto, path, save_as_external_data=True, location="fixed.onnx.data", size_threshold=0)
    before = out.with_name("fixed.onnx.data").read_bytes()
    with pytest.raises(UsageError, match="the output is the input"):
        fix_file(path, out, "tensorrt")
    assert out.with_name("fixed.onnx.data").read_bytes() == before


def test_an_unknown_target_is_refused(path):
    with pytest.raises(UsageError, match="no rules for"):
        lint_file(save_linear(path), "coreml")


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_no_model_is_refused(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptArtifact):
        lint_file(path, "tensorrt")


def test_an_operator_set_that_onnx_here_does_not_know_is_refused(path):
    with pytest.raises(UnsupportedModel, match="opset 99") as caught:
        lint_file(save_linear(path, opset=99), "tensorrt")
    assert "update onnx" in str(caught.value.cure)


def test_with_an_operator_that_nothing_runs_nothing_is_proved(path, out):
    save(path, [node("Mystery", ["x"], "y", domain="own")], {"y": (TensorProto.FLOAT, ["b", K])}, {})
    (found,) = lint_file(path, "tensorrt")
    assert (found.rule, found.fixable) == ("operator", False)
    assert "plugin" in found.cure
    with pytest.raises(UnsupportedModel, match="nothing can be proved"):
        fix_file(path, out, "tensorrt")
    assert not out.exists()


def test_a_graph_that_answers_nan_stays_unfixed(path, out):
    save_linear(path, scale=np.nan, weight_zero=100)
    with pytest.raises(ParityFailure, match="answers NaN, as the one before it did"):
        fix_file(path, out, "tensorrt")
    assert not out.exists()


def test_a_zero_scale_is_left_and_said_to_be(path, out):
    fixed = fix_file(save_linear(path, scale=0.0), out, "tensorrt")
    assert {item.rule for item in fixed.left} == {"scale"}


def test_a_loss_is_refused_unless_it_is_allowed(path, out):
    """Steps of 0.4 become steps of 0.6 where the range has to reach as far below zero as above."""
    save_linear(path, kind=np.uint8, zero=64, scale=0.4)
    out.write_text("what was there")
    with pytest.raises(ParityFailure, match="takes the cosine to the float graph from") as caught:
        fix_file(path, out, "tensorrt")
    assert "--allow-loss" in str(caught.value.cure)
    assert out.read_text() == "what was there"
    fixed = fix_file(path, out, "tensorrt", allowed_loss=0.05)
    assert fixed.left == ()
    assert all(row.after < row.before - 1e-3 for row in fixed.proof)


def test_a_rewriting_that_changes_the_answers_is_refused(path, out, monkeypatch):
    """The proof itself: with a rule that spoils a weight, nothing is written."""

    def spoil(model):
        value = model.graph.initializers["c"]
        value.const_value = ir.tensor(-draw(N) * 9, name="c")
        return 1

    rules = tuple(replace(rule, fix=spoil) if rule.name == "missing-axis" else rule for rule in RULES)
    monkeypatch.setattr("exporter.lint.check_file.RULES", {"tensorrt": rules})
    with pytest.raises(ParityFailure, match="output 'y0'"):
        fix_file(save_linear(path, write_axis=False), out, "tensorrt")
    assert not out.exists()
