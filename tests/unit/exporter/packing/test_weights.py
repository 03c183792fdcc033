import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.packing.weights import split_weights
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx


def write_model(path, width):
    weight = np.linspace(-1, 1, width * width, dtype=np.float32).reshape(width, width)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weight, "w")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "one" / "model.onnx", 600)


def run(path):
    x = np.linspace(0, 1, 1200, dtype=np.float32).reshape(2, 600)
    return OnnxRuntime(OrtOptions(threads=1)).open(describe_onnx(path)).run({"x": x})["y"]


def test_the_weights_lie_beside_the_graph_and_the_answers_are_the_same(model, tmp_path):
    split = split_weights(model, tmp_path / "split")
    assert [path.name for path in describe_onnx(split).files] == ["model.onnx", "model.onnx.data"]
    assert split.stat().st_size < 10_000
    np.testing.assert_array_equal(run(split), run(model))


def test_it_gives_the_same_bytes_each_time(model, tmp_path):
    first, second = (split_weights(model, tmp_path / name) for name in ("first", "second"))
    for left, right in zip(describe_onnx(first).files, describe_onnx(second).files, strict=True):
        assert left.read_bytes() == right.read_bytes()


def test_a_model_that_is_split_or_small_stays_as_it_is(model, tmp_path):
    split = split_weights(model, tmp_path / "split")
    assert split_weights(split, tmp_path / "again") == split
    small = write_model(tmp_path / "small" / "model.onnx", 8)
    assert split_weights(small, tmp_path / "again") == small
    assert not (tmp_path / "again").exists()
