"""A packed weight is unpacked to the floats that ONNX Runtime multiplies with."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.inspecting.blockwise_weights import count_hidden, unpack_weight
from runtimes.ort import OnnxRuntime, describe_onnx

OUTPUTS, INPUTS, SIZE, BLOCKS = 8, 40, 16, 3


def _save(path, bits, arrays):
    inputs = ["x", "w", "s", "z" if "z" in arrays else "", "g" if "g" in arrays else ""]
    sizes = {"K": INPUTS, "N": OUTPUTS, "bits": bits, "block_size": SIZE}
    graph = helper.make_graph(
        [helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **sizes)],
        "packed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return ir.load(path).graph.node(0)


def _draw(bits, *, zero):
    """Return random bytes: each is levels, and so are those of the zero points."""
    random = np.random.default_rng(bits)
    arrays = {
        "w": random.integers(0, 256, (OUTPUTS, BLOCKS, SIZE * bits // 8)).astype(np.uint8),
        "s": random.uniform(0.5, 1, OUTPUTS * BLOCKS).astype(np.float32),
    }
    if zero:
        arrays["z"] = random.integers(0, 256, OUTPUTS * -(-BLOCKS * bits // 8)).astype(np.uint8)
    return arrays


@pytest.mark.parametrize("zero", [False, True], ids=["middle", "zero points"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_floats_are_those_of_onnx_runtime(tmp_path, bits, zero):
    path = tmp_path / "m.onnx"
    node = _save(path, bits, _draw(bits, zero=zero))
    answer = OnnxRuntime().open(describe_onnx(path)).run({"x": np.eye(INPUTS, dtype=np.float32)})["y"]
    np.testing.assert_allclose(unpack_weight(node), answer.T, rtol=1e-5, atol=1e-4)
    assert count_hidden(node) == OUTPUTS * INPUTS - OUTPUTS * BLOCKS * SIZE * bits // 8


def test_inputs_in_another_order_are_not_read(tmp_path):
    arrays = {**_draw(4, zero=False), "g": np.arange(INPUTS, dtype=np.int32) // SIZE}
    assert unpack_weight(_save(tmp_path / "m.onnx", 4, arrays)) is None
