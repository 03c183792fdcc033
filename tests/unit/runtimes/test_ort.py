"""What is ONNX Runtime's own: providers, external data, optimizers, and its messages made readable."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.errors import CorruptArtifact, DataError, MissingDependency, UnsupportedModel, UsageError
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.ort_binding import find_memory
from runtimes.ort_providers import CPU, PROBE_MODEL, choose_providers


def save(path, nodes, *, shape=("n", 4), initializers=(), opset=17, **save_options):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path, **save_options)
    return path


@pytest.fixture
def relu(tmp_path):
    return save(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])])


@pytest.fixture
def split(tmp_path):
    """A model with its weight in a file beside it."""
    folder = tmp_path / "split"
    folder.mkdir()
    weight = numpy_helper.from_array(np.full((4, 400), 2, np.float32), "w")
    return save(
        folder / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        initializers=[weight],
        save_as_external_data=True,
        location="m.onnx.data",
    )


def test_a_provider_that_is_not_there_is_an_error_not_a_fallback(relu):
    runtime = OnnxRuntime(OrtOptions(providers=("NoSuchExecutionProvider", CPU)))
    assert "NoSuchExecutionProvider does not work here" in runtime.why_unavailable()
    with pytest.raises(MissingDependency, match=r"NoSuchExecutionProvider(.|\n)*install") as caught:
        runtime.open(describe_onnx(relu))
    assert caught.value.exit_code == 3


def test_a_provider_that_the_session_did_not_take_is_an_error_not_a_fallback(relu, monkeypatch):
    """As without a GPU: onnxruntime was built with TensorRT, and the session goes on with the CPU alone."""
    import onnxruntime

    whole = onnxruntime.InferenceSession
    built = ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *given, **options: whole(*given, **{**options, "providers": [CPU]})
    )
    runtime = OnnxRuntime(OrtOptions(providers=choose_providers("tensorrt")))
    with pytest.raises(MissingDependency, match=r"TensorrtExecutionProvider was not taken by the session"):
        runtime.open(describe_onnx(relu))


def test_a_provider_that_takes_no_node_is_an_error_not_a_fallback(relu):
    import onnxruntime

    idle = "AzureExecutionProvider"
    if idle not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that runs nothing")
    with pytest.raises(UnsupportedModel, match=rf"{idle} takes no node of the model; {CPU} would run it"):
        OnnxRuntime(OrtOptions(providers=(idle, CPU))).open(describe_onnx(relu))


def test_bound_outputs_hold_what_the_run_gives(relu):
    feeds = {"x": np.array([[-1, 2, -3, 4]], np.float32)[:, ::-1]}
    session = OnnxRuntime(OrtOptions(device_inputs=True)).open(describe_onnx(relu))
    binding, _ = session.prepare(feeds)()
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[4, 0, 2, 0]]
    assert session.run(feeds)["y"].tolist() == [[4, 0, 2, 0]]


@pytest.mark.gpu
def test_cuda_answers_the_same_with_copies_and_without(relu):
    feeds = {"x": np.array([[-1, 2, -3, 4]], np.float32)}
    options = OrtOptions(providers=choose_providers("cuda"))
    copying = OnnxRuntime(options).open(describe_onnx(relu))
    assert copying.run(feeds)["y"].tolist() == [[0, 2, 0, 4]]
    binding, _ = OnnxRuntime(replace(options, device_inputs=True)).open(describe_onnx(relu)).prepare(feeds)()
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[0, 2, 0, 4]]


def test_inputs_stay_only_where_their_memory_is_known():
    assert find_memory("TensorrtExecutionProvider") == "cuda"
    with pytest.raises(UsageError, match="XnnpackExecutionProvider"):
        find_memory("XnnpackExecutionProvider")


def test_external_data_travels_and_counts(split, tmp_path):
    artifact = OnnxRuntime().build(split, tmp_path / "out" / "model.onnx")
    assert [path.name for path in artifact.files] == ["model.onnx", "m.onnx.data"]
    assert artifact.size_bytes() == sum(path.stat().st_size for path in split.parent.iterdir())
    session = OnnxRuntime().open(artifact)
    assert session.run({"x": np.ones((1, 4), np.float32)})["y"][0, 0] == 8
    before = artifact.sha256
    artifact.files[1].write_bytes(artifact.files[1].read_bytes()[::-1])
    assert describe_onnx(artifact.path).sha256 != before


def test_external_data_outside_the_folder_is_refused_before_onnxruntime_sees_it(split, tmp_path):
    model = onnx.load(split, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret"
    (tmp_path / "secret").write_bytes(bytes(6400))
    split.write_bytes(model.SerializeToString())
    with pytest.raises(CorruptArtifact, match="outside the model's folder"):
        describe_onnx(split)
    with pytest.raises(CorruptArtifact, match="outside the model's folder"):
        OnnxRuntime().build(split, tmp_path / "o" / "m.onnx")
    assert not (tmp_path / "o").exists()


def test_truncated_external_data_is_corrupt(split):
    artifact = describe_onnx(split)
    artifact.files[1].write_bytes(b"short")
    with pytest.raises(CorruptArtifact, match=r"m\.onnx"):
        OnnxRuntime().open(artifact)


def test_an_operator_nobody_has_is_unsupported(tmp_path):
    path = save(tmp_path / "m.onnx", [helper.make_node("Frobnicate", ["x"], ["y"], domain="nowhere")])
    with pytest.raises(UnsupportedModel, match="Frobnicate"):
        OnnxRuntime().open(describe_onnx(path))


def test_values_the_model_refuses_are_a_data_error_in_one_line(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=7), helper.make_node("Gather", ["w", "i"], ["y"])]
    weight = numpy_helper.from_array(np.zeros((3, 2), np.float32), "w")
    session = OnnxRuntime().open(describe_onnx(save(tmp_path / "m.onnx", nodes, initializers=[weight])))
    with pytest.raises(DataError, match="out of data bounds") as caught:
        session.run({"x": np.full((1, 4), 9, np.float32)})
    assert "ONNXRuntimeError" not in caught.value.what
    assert "\n" not in caught.value.what


def test_unnamed_output_shapes_come_from_the_session(relu):
    session = OnnxRuntime().open(describe_onnx(relu))
    assert session.outputs[0].shape == ("n", 4)


def test_options_reach_the_session(relu, tmp_path):
    options = OrtOptions(
        threads=1, spinning=False, session_config=(("session.disable_prepacking", "1"),), profile=tmp_path / "profile"
    )
    session = OnnxRuntime(options).open(describe_onnx(relu))
    session.run({"x": np.ones((1, 4), np.float32)})
    profile = session.stop_profiling()
    assert isinstance(profile, Path)
    assert "Relu" in profile.read_text()


def test_disabled_optimizers_leave_the_graph_alone(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    initializers = [
        numpy_helper.from_array(np.ones((4, 4), np.float32), "w"),
        numpy_helper.from_array(np.ones(4, np.float32), "b"),
    ]
    path = save(tmp_path / "m.onnx", nodes, shape=(2, 4), initializers=initializers)

    def ops(options):
        session = OnnxRuntime(replace(options, profile=tmp_path / "p")).open(describe_onnx(path))
        session.run({"x": np.ones((2, 4), np.float32)})
        return session.stop_profiling().read_text()

    assert '"op_name" : "Gemm"' in ops(OrtOptions())
    assert '"op_name" : "Gemm"' not in ops(OrtOptions(disabled_optimizers=("MatMulAddFusion",)))


def test_a_session_reports_to_nobody(tmp_path):
    """ONNX Runtime keeps what it is about to report in the user's cache folder, from 1.31 on."""
    model = tmp_path / "m.onnx"
    model.write_bytes(PROBE_MODEL)
    script = (
        "import pathlib, sys; from runtimes.ort import OnnxRuntime, describe_onnx\n"
        "OnnxRuntime().open(describe_onnx(pathlib.Path(sys.argv[1])))\n"
    )
    ours = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {key: value for key, value in os.environ.items() if key not in ours} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script, str(model)], env=environment, check=True)
    assert not list(tmp_path.rglob("onnxruntime*"))
    assert not list(tmp_path.rglob("DeveloperTools"))
