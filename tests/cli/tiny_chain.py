"""Models whose time is a matter of how many links they have, and whose answer is not."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_WIDTH = 512


def write_chain(path: Path, links: int, *, sign: float = 1.0) -> Path:
    """Write ``x`` multiplied ``links`` times by one, and once by ``sign``."""
    weights = [
        numpy_helper.from_array(np.eye(_WIDTH, dtype=np.float32), "one"),
        numpy_helper.from_array(np.diag(np.linspace(1, sign, _WIDTH, dtype=np.float32)), "last"),
    ]
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "one"], [f"h{i + 1}"]) for i in range(links)]
    nodes.append(helper.make_node("MatMul", [f"h{links}", "last"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
