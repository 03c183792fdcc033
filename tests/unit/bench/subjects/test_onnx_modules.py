"""Where nodes came from, on graphs as exporters write them and ONNX Runtime rewrites them."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.subjects.onnx_modules import name_modules

HIDDEN = 8


def save(path, nodes, weights=(), outputs=("y",), axes=("batch", HIDDEN)):
    """Write nodes over x; ``weights`` maps names to shapes."""
    draw = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(draw.standard_normal(s).astype(np.float32), n) for n, s in dict(weights).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        tensors,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def optimise(path, out):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(out), 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return out


def make_node(op, inputs, output, name="", scopes=None, **attributes):
    node = helper.make_node(op, inputs, [output], name, **attributes)
    if scopes is not None:
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", str(scopes)
    return node


def test_nodes_are_named_by_note_by_name_and_by_weight(tmp_path):
    nodes = [
        make_node("MatMul", ["x", "w"], "a", "node_MatMul_1", scopes=["", "layer.0", "layer.0.query", "matmul"]),
        make_node("Relu", ["a"], "b", "layer.0.act/Relu"),
        make_node("Tanh", ["b"], "c", "/layer.1/act/Tanh"),
        make_node("MatMul", ["c", "layer.1.key.weight"], "d", "MatMul_7"),
        make_node("Sigmoid", ["d"], "y", "Sigmoid_8"),
    ]
    model = save(tmp_path / "m.onnx", nodes, {"w": (HIDDEN, HIDDEN), "layer.1.key.weight": (HIDDEN, HIDDEN)})
    assert name_modules(model, model) == {
        "node_MatMul_1": "layer.0.query",
        "layer.0.act/Relu": "layer.0.act",
        "/layer.1/act/Tanh": "layer.1.act",
        "MatMul_7": "layer.1.key",
        "Sigmoid_8": "",
    }


def test_a_note_without_modules_says_nothing(tmp_path):
    model = save(tmp_path / "m.onnx", [make_node("Relu", ["x"], "y", "node_relu", scopes=["", "relu"])])
    assert name_modules(model, model) == {"node_relu": ""}


def test_a_product_fused_with_what_follows_counts_as_the_product(tmp_path):
    nodes = [
        make_node("Gemm", ["x", "out.weight", "out.bias"], "a", "out/Gemm"),
        make_node("Relu", ["a"], "y", "act/Relu"),
    ]
    model = save(tmp_path / "m.onnx", nodes, {"out.weight": (HIDDEN, HIDDEN), "out.bias": (HIDDEN,)})
    optimised = optimise(model, tmp_path / "optimised.onnx")
    (fused,) = onnx.load(optimised).graph.node
    assert (fused.op_type, name_modules(model, optimised)[fused.name]) == ("FusedGemm", "out")


def test_other_fusions_count_as_the_last_of_what_they_replace(tmp_path):
    """The bias of the linear before joins the sum and the normalisation."""
    weights = {"out.bias": (HIDDEN,), "norm.weight": (HIDDEN,), "norm.bias": (HIDDEN,)}
    nodes = [
        make_node("Tanh", ["x"], "a", "act/Tanh"),
        make_node("Add", ["a", "out.bias"], "b", "out/Add"),
        make_node("Add", ["b", "x"], "c", "block/Add"),
        make_node("LayerNormalization", ["c", "norm.weight", "norm.bias"], "y", "norm/LayerNormalization"),
    ]
    model = save(tmp_path / "m.onnx", nodes, weights, axes=("batch", "sequence", HIDDEN))
    optimised = optimise(model, tmp_path / "optimised.onnx")
    _, fused = onnx.load(optimised).graph.node
    assert (fused.op_type, name_modules(model, optimised)[fused.name]) == ("SkipLayerNormalization", "norm")


def test_what_the_runtime_adds_counts_as_what_reads_it(tmp_path):
    kept = [make_node("Relu", ["x"], "a", "first/Relu"), make_node("Tanh", ["a"], "y", "second/Tanh")]
    model = save(tmp_path / "m.onnx", kept)
    added = [
        make_node("Relu", ["x"], "a", "first/Relu"),
        make_node("Cast", ["a"], "a_cast", "added", to=TensorProto.FLOAT),
        make_node("Tanh", ["a_cast"], "y_cast", "second/Tanh"),
        make_node("Cast", ["y_cast"], "y_out", "added_last", to=TensorProto.FLOAT),
    ]
    optimised = save(tmp_path / "o.onnx", added, outputs=["y_out"])
    found = name_modules(model, optimised)
    assert (found["added"], found["added_last"]) == ("second", "second")


def test_nodes_of_branches_are_named_too(tmp_path):
    def branch(name):
        node = make_node("Relu", ["x"], f"{name}_out", f"{name}/Relu")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_out", 1, None)])

    nodes = [
        make_node("ReduceSum", ["x"], "total", "model/ReduceSum", keepdims=0),
        make_node("Cast", ["total"], "flag", "model/Cast", to=TensorProto.BOOL),
        make_node("If", ["flag"], "y", "block/If", then_branch=branch("yes"), else_branch=branch("no")),
    ]
    model = save(tmp_path / "m.onnx", nodes)
    found = name_modules(model, model)
    assert (found["yes/Relu"], found["no/Relu"], found["block/If"]) == ("yes", "no", "block")
