"""The whole suite on a model so small that nothing takes time: what it writes, prints and refuses."""

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bench.suites.encoder.subjects import TITLES  # noqa: E402
from bench.suites.encoder.suite import main  # noqa: E402


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    """An embedding table, a linear, a token output: what the suite needs of a model."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30522, 8)).astype(np.float32)
    weight = rng.standard_normal((8, 8)).astype(np.float32)
    values = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", 8])]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "weight"], ["last_hidden_state"]),
    ]
    initializers = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "tiny", values, outputs, initializers)
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(float_model, folder, *more):
    return main(
        [
            *("--float-onnx", str(float_model), "--work", str(folder / "work"), "--output", str(folder / "results")),
            *("--blocks", "6", "--block-seconds", "0.0001", "--shape", "1x4", "--no-calibration", *more),
        ]
    )


def test_tables_and_raw_samples(float_model, tmp_path, capsys, minilm_dir, lee_corpus, wordsim353_file):
    assert minilm_dir
    assert lee_corpus
    assert wordsim353_file
    assert run(float_model, tmp_path, "--only", "ort-fp32,dynamic,static-u8s8,static-linears") == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert TITLES["dynamic"] in printed
    assert "| 1.00 [1.00, 1.00]" in printed
    (path,) = (tmp_path / "results").glob("encoder-*.json")
    results = json.loads(path.read_text())
    assert len(results["gemm_gflops"]) == 2
    assert results["samples"]["1x4"].keys() == {"ort-fp32", "dynamic", "static-u8s8", "static-linears"}
    dynamic = results["samples"]["1x4"]["dynamic"]
    assert len(dynamic["ns"]) == 6
    assert len(dynamic["artifact_sha256"]) == 64
    assert results["quality"]["ort-fp32"]["agreement"]["minimum"] == pytest.approx(1.0)
    assert 0.9 < results["quality"]["dynamic"]["agreement"]["mean"] < 1
    assert results["sizes_bytes"]["dynamic"] < results["sizes_bytes"]["ort-fp32"] / 2


def test_a_broken_artifact_is_an_error_with_its_code(float_model, tmp_path, capsys, minilm_dir, lee_corpus):
    assert minilm_dir
    assert lee_corpus
    (tmp_path / "artifact").mkdir()
    only = ("--only", "ort-fp32,stepdown", "--artifact", str(tmp_path / "artifact"))
    assert run(float_model, tmp_path, *only, "--no-quality") == 8
    assert "manifest" in capsys.readouterr().err


def test_unknown_subjects_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "ort-fp32,fastest"])
    assert "static-linears" in capsys.readouterr().err
