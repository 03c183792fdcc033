"""Small graphs with quantisers in them, right but for what a test asks for."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

K, N = 16, 20


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op, inputs, output, domain="", **attributes):
    return helper.make_node(op, inputs, [output], name=f"n_{output}", domain=domain, **attributes)


def answer(path, **feeds):
    """Run a file as it is written: nothing fused, no integers that saturate on old CPUs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def distance(given, wanted):
    """Return the error as a part of what is wanted: it sees scale, where a cosine does not."""
    return float(np.linalg.norm(given - wanted) / np.linalg.norm(wanted))


def save(path, nodes, outputs, arrays, *, inputs=None, opset=21, functions=()):
    """Write a model; ``inputs`` and ``outputs``: name to (type, shape)."""
    inputs = inputs or {"x": (TensorProto.FLOAT, ["b", K])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)
    onnx.save(model, path)
    return path


def save_linear(
    path, *, kind=np.int8, zero=0, weight_zero=0, axis=1, write_axis=True, after=(), scale=0.03, arrays=None, opset=21
):
    """x -> Q -> DQ -> MatMul with an int8 weight -> Add, and what ``after`` says."""
    weight_kind = np.uint8 if weight_zero else np.int8
    channels = (K, N)[axis]
    stored = np.random.default_rng(1).integers(-100, 100, (K, N)) + weight_zero
    constants = {
        "s": np.array(scale, np.float32),
        "z": np.array(zero, kind),
        "w": stored.astype(weight_kind),
        "ws": np.linspace(0.01, 0.02, channels, dtype=np.float32),
        "wz": np.full(channels, weight_zero, weight_kind),
        "c": draw(N),
        **(arrays or {}),
    }
    along = {"axis": axis} if write_axis else {}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", **along),
        node("MatMul", ["d", "wd"], "m"),
        node("Add", ["m", "c"], "y0"),
        *after,
    ]
    last = after[-1].output[0] if after else "y0"
    return save(path, nodes, {last: (TensorProto.FLOAT, ["b", N])}, constants, opset=opset)
