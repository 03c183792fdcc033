"""Execution providers by the names that users have for them, and which of them compute here."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.errors import MissingDependency
from runtimes.ort_providers import CPU, PROBE_MODEL, available_providers, choose_providers, name_device


def test_probe_model_is_what_its_comment_says():
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "probe", values[:1], values[1:], [weight]
    )
    assert onnx.load_from_string(PROBE_MODEL).graph.SerializeToString() == graph.SerializeToString()


def test_only_providers_that_compute_here_are_available():
    providers = available_providers()
    assert CPU in providers
    assert "AzureExecutionProvider" not in providers  # listed by onnxruntime, but it calls a web service


def test_devices_are_providers_by_a_short_name(monkeypatch):
    import onnxruntime

    built = ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    assert [name_device(provider) for provider in built] == ["tensorrt", "cuda", "cpu"]
    assert choose_providers("cuda") == ("CUDAExecutionProvider",)
    assert choose_providers("tensorrt") == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    with pytest.raises(MissingDependency, match=r"no execution provider 'openvino'; it has tensorrt, cuda, cpu"):
        choose_providers("openvino")
