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
from tests.unit.exporter.lint.quantised_graphs import K, N, answer, distance, draw, node, save, save_linear


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
    monkeypatch.setattr("exporter.write_model._INLINE_LIMIT_BYTES", 100)
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


def test_constants_that_are_listed_as_inputs_are_constants(path, out):
    """As the first versions of the format wanted it."""
    proto = onnx.load(save_linear(path, weight_zero=128, opset=13))
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in proto.graph.initializer
    )
    onnx.save(proto, path)
    assert [(item.rule, item.fixable) for item in lint_file(path, "tensorrt")] == [("integer-type", True)]
    assert fix_file(path, out, "tensorrt").left == ()
    onnx.checker.check_model(out, full_check=True)
    assert [value.name for value in onnx.load(out).graph.input] == ["x"]


def test_a_branch_that_gives_what_it_finds_outside_stays_one(path, out):
    arrays = {"s": np.array(0.03, np.float32), "z": np.array(100, np.uint8), "k": draw(1, K)}
    pair = [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "d")]
    graphs = {}
    for word, op, given in (("then", "Identity", ["d"]), ("else", "Add", ["d", "k"])):
        last = helper.make_tensor_value_info(f"{word}_y", TensorProto.FLOAT, None)
        graphs[f"{word}_branch"] = helper.make_graph([node(op, given, last.name)], word, [], [last])
    inputs = {"x": (TensorProto.FLOAT, ["b", K]), "take": (TensorProto.BOOL, [])}
    save(path, [*pair, node("If", ["take"], "y", **graphs)], {"y": (TensorProto.FLOAT, None)}, arrays, inputs=inputs)
    fix_file(path, out, "tensorrt")
    x = draw(4, K)
    for take in (True, False):
        (given,), (wanted,) = (answer(file, x=x, take=np.array(take)) for file in (out, path))
        assert distance(given, wanted) < 0.02


@pytest.mark.parametrize("content", ["short", "one input", "twice"])
def test_a_graph_that_cannot_be_is_refused(path, content):
    proto = onnx.load(save_linear(path))
    if content == "one input":
        del proto.graph.node[0].input[1:]
    elif content == "twice":
        proto.graph.node.append(proto.graph.node[0])
    onnx.save(proto, path, save_as_external_data=content == "short", location="weights", size_threshold=0)
    if content == "short":
        path.with_name("weights").write_bytes(b"12")
    with pytest.raises(CorruptArtifact) as caught:
        lint_file(path, "tensorrt")
    assert "export the file again" in caught.value.cure


def test_a_domain_written_out_is_the_same_one(path):
    proto = onnx.load(save_linear(path))
    proto.opset_import[0].domain = "ai.onnx"
    onnx.save(proto, path)
    assert _rules(path) == []


def test_inputs_with_fixed_axes_of_their_own_are_fed(path, out):
    arrays = {"w": np.full((K, N), 90, np.uint8), "s": np.float32(0.01), "z": np.uint8(120)}
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], "wf"),
        node("MatMul", ["x", "wf"], "m"),
        node("Add", ["m", "row"], "y"),
    ]
    inputs = {"x": (TensorProto.FLOAT, [3, K]), "row": (TensorProto.FLOAT, [1, N])}
    save(path, nodes, {"y": (TensorProto.FLOAT, [3, N])}, arrays, inputs=inputs)
    assert fix_file(path, out, "tensorrt").left == ()


def test_ids_stay_inside_of_the_smallest_table(path, out):
    table = np.random.default_rng(0).integers(0, 255, (50, K)).astype(np.uint8)
    arrays = {"t": table, "s": np.float32(0.01), "z": np.uint8(120), "w": draw(K, N)}
    nodes = [
        node("DequantizeLinear", ["t", "s", "z"], "tf"),
        node("Cast", ["ids"], "long", to=TensorProto.INT64),
        node("Gather", ["tf", "long"], "rows"),
        node("MatMul", ["rows", "w"], "y"),
    ]
    inputs = {"ids": (TensorProto.INT32, ["batch", "length"])}
    save(path, nodes, {"y": (TensorProto.FLOAT, None)}, arrays, inputs=inputs)
    assert fix_file(path, out, "tensorrt").left == ()


def test_an_output_that_is_infinite_on_purpose_is_proved_all_the_same(path, out):
    after = [node("Where", ["keep", "y0", "inf"], "y")]
    save_linear(path, weight_zero=100, after=after, arrays={"keep": np.arange(N) % 3 > 0, "inf": np.float32(-np.inf)})
    fixed = fix_file(path, out, "tensorrt")
    assert fixed.left == ()
    assert all(row.before > 0.999 < row.after for row in fixed.proof)


def test_text_beside_numbers_is_no_trouble(path, out):
    arrays = {"words": np.array(["a", "b"], object)}
    nodes = [node("Relu", ["x"], "y"), node("Identity", ["words"], "t")]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", K]), "t": (TensorProto.STRING, [2])}, arrays)
    proof = fix_file(path, out, "tensorrt").proof
    assert {row.output for row in proof} == {"y", "t"}
    assert all(row.after == pytest.approx(1) for row in proof)


def test_what_is_added_takes_no_name_that_is_there(path, out):
    """The Clip's ends are named after the quantiser's output."""
    save_linear(path, kind=np.uint8, zero=100, after=[node("Mul", ["y0", "q_range_low"], "y")])
    proto = onnx.load(path)
    proto.graph.input.append(helper.make_tensor_value_info("q_range_low", TensorProto.FLOAT, [1, N]))
    onnx.save(proto, path)
    assert fix_file(path, out, "tensorrt").left == ()
    onnx.checker.check_model(out, full_check=True)
    assert [value.name for value in onnx.load(out).graph.input] == ["x", "q_range_low"]


def test_weights_past_2_gb_replace_no_file_unless_asked(path, out, monkeypatch):
    monkeypatch.setattr("exporter.write_model._INLINE_LIMIT_BYTES", 100)
    weights = out.with_name("fixed.onnx.data")
    weights.write_text("somebody else's")
    save_linear(path, weight_zero=100)
    with pytest.raises(UsageError, match="the weights would replace a file") as caught:
        fix_file(path, out, "tensorrt")
    assert "--force" in caught.value.cure
    assert (weights.read_text(), out.exists()) == ("somebody else's", False)
    assert fix_file(path, out, "tensorrt", force=True).left == ()
