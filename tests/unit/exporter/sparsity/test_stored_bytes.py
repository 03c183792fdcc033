"""What a weight takes is what the file holds because of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop
from exporter.sparsity.stored_bytes import count_stored
from runtimes.isa import named
from runtimes.sparse.storage import encode

_RNG = np.random.default_rng(3)
_WEIGHT = (_RNG.standard_normal((64, 64)) * (_RNG.random((64, 64)) < 0.1)).astype(np.float32)
# Values, then a scale and a zero point for each of 64 outputs.
_INT8 = 64 * 64 + 64 * 4 + 64


def _write(path: Path, body: str, inputs: str = "float[batch, sequence, 64] x") -> Path:
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g ({inputs}) => (float[batch, sequence, 64] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, array in {"w": _WEIGHT, "v": _WEIGHT[::-1].copy(), "b": np.ones(64, np.float32)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    onnx.save(onnx.shape_inference.infer_shapes(proto), path)
    return path


def _count(graph: Path, spec: CandidateSpec) -> dict[str, int]:
    workshop = Workshop(
        graphs=FloatGraphs(traced=graph, fused=graph, merged=graph),
        directory=graph.parent / "made",
        isa=named("avx2"),
        make_plan=None,
        choose_blocks=lambda *_: {"MatMul_0": (1, 1), "MatMul_1": (1, 1), "MatMul_2": (1, 1)},
    )
    return dict(count_stored(workshop.build(spec).path, graph))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (CandidateSpec(arithmetic="float"), 4 * 64 * 64),
        (CandidateSpec(arithmetic="int8-dynamic"), _INT8),
        # Two blocks of 32 for each output, with a scale each.
        (CandidateSpec(arithmetic="weights-8"), 64 * 64 + 64 * 2 * 4),
        (CandidateSpec(arithmetic="weights-4"), 64 * 64 // 2 + 64 * 2 * 4),
        (CandidateSpec(arithmetic="float", sparse=True), encode(_WEIGHT.T.copy(), (1, 1)).size_bytes),
    ],
)
def test_values_indices_scales_and_zero_points_count_and_the_bias_does_not(tmp_path, spec, expected):
    graph = _write(tmp_path / "g.onnx", "m = MatMul(x, w)  y = Add(m, b)")
    assert _count(graph, spec) == {"MatMul_0": expected}


def test_integers_that_were_trained_count_as_they_are_stored(tmp_path):
    """The graph that names the linears has them in float; in the model they are behind DequantizeLinear."""
    named = _write(tmp_path / "named.onnx", "y = MatMul(x, w)")
    trained = onnx.load(named)
    (product,) = trained.graph.node
    product.input[1] = "floats"
    arrays = {"q": np.ones((64, 64), np.int8), "s": np.ones(64, np.float32), "z": np.zeros(64, np.int8)}
    trained.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    trained.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", list(arrays), ["floats"], axis=1))
    onnx.save(trained, tmp_path / "trained.onnx")
    assert count_stored(tmp_path / "trained.onnx", named) == {"MatMul_0": _INT8}


def test_a_layer_left_in_float_is_float(tmp_path):
    graph = _write(tmp_path / "g.onnx", "m = MatMul(x, w)  y = MatMul(m, v)")
    spec = CandidateSpec(arithmetic="int8-dynamic", float_layers=("MatMul_1",))
    assert _count(graph, spec) == {"MatMul_0": _INT8, "MatMul_1": 4 * 64 * 64}


def test_what_layers_share_counts_once(tmp_path):
    graph = _write(tmp_path / "g.onnx", "m = MatMul(x, w)  y = MatMul(m, w)")
    assert _count(graph, CandidateSpec(arithmetic="float")) == {"MatMul_0": 4 * 64 * 64, "MatMul_1": 0}
    sparse = _count(graph, CandidateSpec(arithmetic="float", sparse=True))
    assert sparse["MatMul_0"] > sparse["MatMul_1"] == 0


def test_a_table_that_is_looked_up_too_is_there_anyway(tmp_path):
    """In float the product costs nothing then; a sparse form of its own makes the file larger."""
    body = "e = Gather(w, ids)  t = Transpose<perm=[1, 0]>(w)  y = MatMul(e, t)"
    graph = _write(tmp_path / "g.onnx", body, "int64[batch, sequence] ids")
    assert _count(graph, CandidateSpec(arithmetic="float")) == {"MatMul_2": 0}
    assert _count(graph, CandidateSpec(arithmetic="float", sparse=True))["MatMul_2"] > 0
