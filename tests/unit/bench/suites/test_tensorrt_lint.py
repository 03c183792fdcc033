"""The whole suite on a model so small that nothing takes long: what it writes and prints."""

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bench.suites.tensorrt_lint import Fix, Plan, Row, main, render_rows  # noqa: E402


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    """An embedding table, a linear, and an activation between: what the tools need of an encoder."""
    generator = np.random.default_rng(0)
    arrays = {"table": (30522, 8), "weight": (8, 8)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="lookup"),
        helper.make_node("Tanh", ["embedded"], ["active"], name="activation"),
        helper.make_node("MatMul", ["active", "weight"], ["last_hidden_state"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", 8])],
        [numpy_helper.from_array(generator.standard_normal(s).astype(np.float32), n) for n, s in arrays.items()],
    )
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_is_found_and_what_fixing_makes_of_it(float_model, tmp_path, capsys, minilm_dir, lee_corpus):
    assert minilm_dir
    assert lee_corpus
    words = ["--float-onnx", str(float_model), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "results")]
    assert main([*words, "--only", "ort-dynamic,ort-operators"]) == 0
    printed = capsys.readouterr().out
    assert "dynamic-operator" in printed
    (path,) = (tmp_path / "results").glob("tensorrt-lint-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert rows["ort-dynamic"]["found"]["dynamic-operator"] > 0
    assert rows["ort-operators"]["found"]["integer-operator"] > 0
    for row in rows.values():
        assert row["errors"] > 0
        assert row["plan"]["size_bytes"] is None
        assert row["fix"]["after"] > 0.9
        assert row["fix"]["left"].keys() <= {"opset"}


def test_unknown_graphs_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "tensorflow"])
    assert "ort-dynamic" in capsys.readouterr().err


def test_the_table_says_what_became_a_plan_and_why_the_rest_did_not():
    fix = Fix(
        applied={"zero-point": 3}, left={}, before=0.9, after=0.8, refused="it loses", plan=Plan(size_bytes=2_000_000)
    )
    rows = {
        "ort-static": Row(found={"zero-point": 3}, errors=3, plan=Plan(why="zero point"), fix=fix),
        "nncf": Row(why="no such package"),
    }
    table = render_rows(rows)
    assert "| zero-point 3 |" in table
    assert "0.900 -> 0.800 (refused)" in table
    assert "0 of 2 graphs become plans as they are, 1 after --fix (1 with a loss)." in table
    assert "as it is: zero point" in table
    assert "not made: no such package" in table
