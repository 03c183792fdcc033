"""What the manifest and the ledger say of a finished model."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporter.passes.sparse_linears import replace_linears
from exporter.sparse_target import describe_kernels
from runtimes.sparse.library import why_unavailable

needs_kernels = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


@pytest.fixture
def write(tmp_path):
    """Write a graph with its weights, and return its path."""

    def call(body: str, **weights: np.ndarray):
        text = f"""<ir_version: 10, opset_import: ["" : 23]>
        g (float[batch, sequence, 64] x) => (float[batch, sequence, 64] y) {{ {body} }}"""
        proto = onnx.parser.parse_model(text)
        for name, array in weights.items():
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for number, node in enumerate(proto.graph.node):
            node.name = f"{node.op_type}_{number}"
        onnx.save(proto, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return call


@needs_kernels
def test_the_manifest_names_the_kernels_of_a_model_that_has_sparse_layers(write, tmp_path):
    path = write("y = MatMul(x, w)", w=np.eye(64, dtype=np.float32))
    assert describe_kernels(path) == {}
    model = ir.load(path)
    replace_linears(model, {"MatMul_0": (1, 1)}, values="float32")
    ir.save(model, tmp_path / "sparse.onnx")
    assert set(describe_kernels(tmp_path / "sparse.onnx")["sparse_kernels"]) == {"version", "sha256"}
