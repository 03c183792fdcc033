"""The whole TensorRT suite on a model so small that nothing takes time: what it writes, prints and refuses."""

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bench.suites.tensorrt.graphs import TITLES  # noqa: E402
from bench.suites.tensorrt.plan_text import READ_FROM  # noqa: E402
from bench.suites.tensorrt.suite import main  # noqa: E402
from runtimes.errors import MissingDependency  # noqa: E402
from runtimes.trt.library import choose_library  # noqa: E402


def can_read_plans():
    try:
        return choose_library("tensorrt-rtx", for_sms=False).version.startswith(f"{READ_FROM}.")
    except MissingDependency:
        return False


def write_model(path, scale=1.0):
    """An embedding table, a linear, a token output: what the suite needs of a model."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30522, 16)).astype(np.float32)
    weight = (scale * rng.standard_normal((16, 16))).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="lookup"),
        helper.make_node("MatMul", ["embedded", "weight"], ["last_hidden_state"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", 16])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def run(folder, *more):
    model = write_model(folder / "float" / "model.onnx")
    words = ("--float-onnx", str(model), "--work", str(folder / "work"), "--output", str(folder / "results"))
    return main([*words, "--texts", "8", *more])


def read_results(folder):
    (path,) = (folder / "results").glob("tensorrt-*.json")
    return json.loads(path.read_text())


@pytest.fixture(autouse=True)
def assets(minilm_dir, lee_corpus, wordsim353_file):
    """The real tokenizer and texts; skipped with the reason where they cannot be had."""
    return minilm_dir, lee_corpus, wordsim353_file


def test_accuracy_plans_and_tables(tmp_path, capsys):
    assert run(tmp_path, "--only", "float,ort-linears,ort-linears-percentile") == 0
    printed = capsys.readouterr().out
    assert TITLES["ort-linears"] in printed
    results = read_results(tmp_path)
    assert (results["calibration_texts"], results["held_out_texts"]) == (8, 94)
    subjects = results["subjects"]
    assert subjects["float"]["accuracy"]["tokens"]["minimum"] == pytest.approx(1.0)
    for key in ("ort-linears", "ort-linears-percentile"):
        tokens = subjects[key]["accuracy"]["tokens"]
        assert 0.9 < tokens["minimum"] <= tokens["mean"] < 1
    assert results["goals"] == []
    if can_read_plans():
        assert subjects["float"]["plan"]["float_linears"] == ["linear"]
        assert subjects["ort-linears"]["plan"]["int8_linears"] == ["linear"]
        assert subjects["ort-linears"]["why"] == []
    else:
        assert subjects["float"]["why"][0].startswith("no plan: ")


def test_an_exported_graph_is_judged_against_its_goals(tmp_path, capsys):
    """A graph of other weights: its cosines are far from what was asked."""
    write_model(tmp_path / "exported" / "tensorrt" / "model.onnx", scale=-1.0)
    assert run(tmp_path, "--only", "float,stepdown", "--artifact", str(tmp_path / "exported")) == 0
    goals = {goal["name"]: goal for goal in read_results(tmp_path)["goals"]}
    assert goals["token cosine, mean"]["measured"] == "-1.0000"
    assert goals["token cosine, mean"]["verdict"] == "missed"
    assert "MISSED" in capsys.readouterr().out


def test_a_graph_that_overflows_is_a_row_without_numbers(tmp_path, capsys):
    write_model(tmp_path / "exported" / "tensorrt" / "model.onnx", scale=1e38)
    assert run(tmp_path, "--only", "stepdown", "--artifact", str(tmp_path / "exported")) == 0
    assert "not judged: the model answers NaN or infinity" in capsys.readouterr().out
    assert read_results(tmp_path)["goals"][0]["measured"] == "no number"


def test_a_broken_artifact_is_an_error_with_its_code(tmp_path, capsys):
    (tmp_path / "exported").mkdir()
    assert run(tmp_path, "--only", "stepdown", "--artifact", str(tmp_path / "exported")) == 8
    assert "export it again" in capsys.readouterr().err


def test_unknown_graphs_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "float,fastest"])
    assert "modelopt-entropy" in capsys.readouterr().err
