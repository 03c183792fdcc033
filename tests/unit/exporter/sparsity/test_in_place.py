"""Times of layers where they stand: which nodes of a graph are a layer's, and both graphs run in turns."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporter.candidates.timing import TimingPlan
from exporter.passes.sparse_linears import replace_linears
from exporter.passes.sparse_norm import fold_norms
from exporter.sparsity.in_place import Span, find_nodes, find_spans, measure_in_place, read_nodes, sum_times
from runtimes.ort import describe_onnx
from runtimes.sparse.library import why_unavailable

QUERY = Span(layer="query", read=("x",), given="q")
KEY = Span(layer="key", read=("x",), given="k")


def _graph(body: str, outputs: str) -> ir.Graph:
    text = f"""<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
    g (float[n, 8] w) => ({outputs}) <float[8, 8] a = {{}}, float[8] b = {{}}> {{ {body} }}"""
    text = text.replace("{}", "{" + ", ".join(["0"] * 64) + "}", 1).replace("{}", "{" + ", ".join(["0"] * 8) + "}")
    model = ir.from_proto(onnx.parser.parse_model(text))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model.graph


def test_a_layer_is_all_between_what_it_reads_and_what_it_gives():
    graph = _graph("x = Neg(w)  m = MatMul(x, a)  q = Add(m, b)  y = Relu(q)", "float[n, 8] y")
    assert sum_times(find_nodes(graph, [QUERY]), {"x": 1.0, "m": 10.0, "q": 100.0, "y": 1000.0}) == {"query": 110.0}


def test_a_norm_and_its_residual_belong_to_the_layer_that_does_them():
    """Whatever the residual cost, and whatever the product is made of."""
    body = "x = Neg(w)  r = Abs(w)  m = MatMul(x, a)  s = Sum(m, r)  y = LayerNormalization(s, b)"
    graph = _graph(body, "float[n, 8] y")
    span = Span(layer="output", read=("x", "r"), given="y")
    times = {"x": 1.0, "r": 1.0, "m": 10.0, "s": 100.0, "y": 1000.0}
    assert sum_times(find_nodes(graph, [span]), times) == {"output": 1110.0}


def test_what_layers_share_is_divided_among_them():
    body = "x = Neg(w)  s = Abs(x)  q = MatMul(s, a)  k = MatMul(s, a)  y = Add(q, k)"
    graph = _graph(body, "float[n, 8] y")
    times = sum_times(find_nodes(graph, [QUERY, KEY]), {"s": 10.0, "q": 100.0, "k": 200.0, "y": 1000.0})
    assert times == {"query": 105.0, "key": 205.0}


def test_a_layer_that_is_gone_or_needs_another_value_is_left_out():
    graph = _graph("x = Neg(w)  v = Abs(w)  q = Add(x, v)  y = Relu(q)", "float[n, 8] y")
    assert sum_times(find_nodes(graph, [QUERY, KEY]), {"x": 1.0, "v": 1.0, "q": 1.0, "y": 1.0}) == {}


def test_a_node_takes_what_it_took_in_the_middle_of_its_runs():
    events = [{"cat": "Node", "name": "q_kernel_time", "dur": time} for time in (10, 900, 12)]
    events += [{"cat": "Node", "name": "q_fence_before", "dur": 1}, {"cat": "Session", "name": "model_run", "dur": 9}]
    assert read_nodes(events) == {"q": 12}


@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
def test_both_models_are_profiled_at_every_shape(tmp_path):
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 23]>
    g (float[batch, sequence, 32] x) => (float[batch, sequence, 32] y) {
        m = MatMul(x, up)  a = Add(m, bias)  h = Gelu(a)  d = MatMul(h, down)
        s = Sum(d, x)  y = LayerNormalization(s, scale)
    }""")
    for name, shape in {"up": (32, 64), "bias": (64,), "down": (64, 32), "scale": (32,)}.items():
        array = rng.standard_normal(shape).astype(np.float32) * (rng.random(shape) < 0.1)
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    onnx.save(onnx.shape_inference.infer_shapes(proto), tmp_path / "dense.onnx")
    layers = ["MatMul_0", "MatMul_3"]
    model = ir.load(tmp_path / "dense.onnx")
    replace_linears(model, dict.fromkeys(layers, (1, 1)), values="float32")
    assert fold_norms(model) == 1
    ir.save(model, tmp_path / "sparse.onnx")
    spans = find_spans(tmp_path / "dense.onnx", layers)
    assert [(span.read, span.given) for span in spans] == [(("x",), "h"), (("h", "x"), "y")]
    done = []
    gains = measure_in_place(
        {kind: describe_onnx(tmp_path / f"{kind}.onnx") for kind in ("dense", "sparse")},
        spans,
        TimingPlan(shapes=((1, 4), (2, 8)), vocabulary=10, seed=0),
        tmp_path / "work",
        threads=1,
        advance=done.append,
    )
    assert set(gains) == set(layers)
    assert all(set(gain) == {"1x4", "2x8"} and min(gain.values()) > 0 for gain in gains.values())
    assert done == [1, 1]
    # With its weights, a graph is as large as its model: it is written once, and not for each shape.
    assert sorted(path.name for path in (tmp_path / "work").rglob("*.onnx")) == ["dense.onnx", "sparse.onnx"]
