"""Models of one sparse operator, and sessions over them, for the tests of the kernels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.sparse.library import ISA_VARIABLE, library_path, why_unavailable
from runtimes.sparse.storage import StoredWeight, encode


def find_library() -> Path:
    """Return the library, or skip with the reason; STEPDOWN_REQUIRE=kernels makes that a failure."""
    reason = why_unavailable()
    if reason is not None and "kernels" not in os.environ.get("STEPDOWN_REQUIRE", ""):
        pytest.skip(reason)
    return library_path()


def force_isa(isa: str, monkeypatch) -> None:
    """Let sessions opened from here on use an instruction set; skip where this CPU has it not."""
    find_library()
    monkeypatch.setenv(ISA_VARIABLE, isa)
    try:
        open_linear(encode(np.ones((1, 1), np.float32), (1, 1)), np.zeros(1, np.float32))
    except Exception as error:  # what ONNX Runtime throws has no class of its own
        if "this CPU has" not in str(error):
            raise
        pytest.skip(f"this CPU has no {isa}")


def draw_mask(random, out: int, inputs: int, block: tuple[int, int], density: float) -> np.ndarray:
    """Return where a weight [out, in] is kept: whole blocks, each with a chance of ``density``."""
    high, wide = block
    kept = random.random((-(-out // high), -(-inputs // wide))) < density
    return np.kron(kept, np.ones(block, bool))[:out, :inputs]


def move(x: np.ndarray, floats: int) -> np.ndarray:
    """Return the same numbers, so many floats past where an array begins."""
    there = np.empty(x.size + floats, np.float32)[floats:].reshape(x.shape)
    there[...] = x
    return there


def make_arrays(stored: StoredWeight, bias, scales=None) -> dict:
    """Return the initializers of a node by the names of its inputs, in their order."""
    middle = {} if scales is None else {"scales": scales}
    return {"values": stored.values, "gaps": stored.gaps, "row_starts": stored.row_starts, **middle, "bias": bias}


def make_attributes(stored: StoredWeight, activation: str = "none") -> dict:
    (out, inputs), (high, wide) = stored.shape, stored.block
    return {
        "out_features": out, "in_features": inputs, "block_out": high, "block_in": wide, "activation": activation
    }  # fmt: skip


def make_model(
    arrays: dict, attributes: dict, shape=("tokens", None), *, computed: str | None = None, named=None
) -> bytes:
    """Return a model of one node: of floats, or of INT8 where ``scales`` is among the arrays.

    Args:
        arrays: What :func:`make_arrays` returns, or what a hostile file has in its place.
        attributes: What :func:`make_attributes` returns, or not.
        shape: The axes of X; None is the last axis as the attributes have it.
        computed: An array to make an input of the model, of any size, instead of an initializer.
        named: Inputs of the node after X, where they are not just the arrays; "" is one left out.
    """
    axes = [attributes.get("in_features") if axis is None else axis for axis in shape]
    op = "SparseLinearInt8" if "scales" in arrays else "SparseLinear"
    node = helper.make_node(op, ["x", *(arrays if named is None else named)], ["y"], domain="ai.stepdown", **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)]
    if computed is not None:
        kind = helper.np_dtype_to_tensor_dtype(arrays[computed].dtype)
        inputs.append(helper.make_tensor_value_info(computed, kind, [None] * arrays[computed].ndim))
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items() if name != computed]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "one", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.stepdown", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def open_model(model: bytes | str, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(find_library()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_linear(stored: StoredWeight, bias, scales=None, *, activation: str = "none", threads: int = 1):
    """Open a session over one operator whose X has one axis of tokens."""
    model = make_model(make_arrays(stored, bias, scales), make_attributes(stored, activation))
    return open_model(model, threads)
