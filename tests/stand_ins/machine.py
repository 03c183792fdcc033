"""A machine with a GPU and TensorRT, both stand-ins, for tests of what runs plans."""

from dataclasses import dataclass
from types import ModuleType

from runtimes.trt import device
from runtimes.trt.library import Library
from tests.stand_ins.cuda_driver import Gpu, make_driver
from tests.stand_ins.tensorrt_api import make_tensorrt


@dataclass(frozen=True)
class Machine:
    gpu: Gpu
    module: ModuleType
    library: Library


def make_machine(release, monkeypatch, *, sm=89, memory_bytes=1 << 20, layers=()):
    """Put a GPU and one release of TensorRT ("10", "11" or "rtx") in place of what this machine has."""
    gpu = Gpu(sm=sm, memory_bytes=memory_bytes)
    module = make_tensorrt(release, gpu=gpu, layers=layers)
    name = "tensorrt-rtx" if release == "rtx" else "tensorrt"

    def import_module(asked):
        if asked != module.__name__:
            raise ImportError(f"No module named {asked!r}")
        return module

    monkeypatch.setattr(device, "_import_driver", lambda: make_driver(gpu))
    monkeypatch.setattr("runtimes.trt.library.import_module", import_module)
    device.read_compute_capability.cache_clear()
    return Machine(gpu=gpu, module=module, library=Library(name=name, module=module, version=module.__version__))


def write_copy(path, *, operator="Identity"):
    """Write a model from x to y, both [batch, 4]: what the stand-in runs."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], name="first")], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def write_decoder(path):
    """Write a model of a decoder's inputs and outputs, a layer of one head one number wide: what the stand-in runs."""
    from onnx import TensorProto, helper

    def make(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.INT64, shape)

    kinds = ("key", "value")
    inputs = [make(name, "batch", "sequence") for name in ("input_ids", "position_ids")]
    inputs += [make("attention_mask", "batch", "total")]
    inputs += [make(f"past_key_values.0.{kind}", "batch", 1, "past", 1) for kind in kinds]
    outputs = [make("logits", "batch", "sequence")]
    outputs += [make(f"present.0.{kind}", "batch", 1, "total", 1) for kind in kinds]
    nodes = [helper.make_node("Identity", ["input_ids"], ["logits"], name="first")]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path
