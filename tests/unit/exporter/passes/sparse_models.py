"""Small models over pruned weights, and what they answer in ONNX's reference with our operators in numpy."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_ir.passes import common

from runtimes.sparse.reference import Norm, sparse_linear, sparse_linear_int8
from runtimes.sparse.storage import StoredWeight

_WEIGHTS = {
    "w": (16, 32), "u": (32, 16), "v": (16, 16), "square": (3, 16),
    "b": (32,), "c": (16,), "d": (16,), "row": (1, 16), "one": (1,), "mask": (3, 16),
    "key": (16, 8), "odd": (16, 6), "wide": (16, 48),
}  # fmt: skip


def _store(values, gaps, row_starts, out_features, in_features, block_out, block_in):
    shape, block = (out_features, in_features), (block_out, block_in)
    return StoredWeight(shape=shape, block=block, values=values, gaps=gaps, row_starts=row_starts)


def _read_norm(arrays, epsilon) -> Norm | None:
    return Norm(**dict(zip(("residual", "scale", "bias"), arrays, strict=True)), epsilon=epsilon) if arrays else None


class SparseLinear(OpRun):
    op_domain = "ai.stepdown"

    def _run(self, x, values, gaps, row_starts, bias, *norm, activation=None, epsilon=None, **shape):
        stored = _store(values, gaps, row_starts, **shape)
        return (sparse_linear(x, stored, bias, activation, _read_norm(norm, epsilon)),)


class SparseLinearInt8(OpRun):
    op_domain = "ai.stepdown"

    def _run(self, x, values, gaps, row_starts, scales, bias, *norm, activation=None, epsilon=None, **shape):
        stored = _store(values, gaps, row_starts, **shape)
        return (sparse_linear_int8(x, stored, scales, bias, activation, _read_norm(norm, epsilon)),)


def make_model(body: str, outputs: str = "float[n, t, k] y") -> ir.Model:
    rng = np.random.default_rng(5)
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g (float[n, t, 16] x) => ({outputs}) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, shape in _WEIGHTS.items():
        array = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 2 and name not in ("row", "mask", "square"):
            array[rng.random(shape) < 0.8] = 0
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    common.NameFixPass()(model)
    for number, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{number}"
    return model


def run_model(model: ir.Model) -> list[np.ndarray]:
    x = np.random.default_rng(6).standard_normal((2, 3, 16)).astype(np.float32)
    return ReferenceEvaluator(ir.to_proto(model), new_ops=[SparseLinear, SparseLinearInt8]).run(None, {"x": x})
