"""Axes, nodes and weights get the names people know; a weight is stored once."""

import numpy as np
import onnx_ir as ir
import pytest

from exporter.tracing.names import name_axes, name_nodes, share_tied_weights

SCOPES = "pkg.torch.onnx.name_scopes"


def make_value(name, shape, dtype=ir.DataType.FLOAT):
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def make_model(inputs, outputs, nodes, weights=()):
    initializers = []
    for name, array in weights:
        tensor = ir.tensor(array, name=name)
        initializers.append(
            ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    by_name = {value.name: value for value in (*inputs, *initializers)}
    made = []
    for op_type, used, output, scopes in nodes:
        node = ir.node(op_type, [by_name[name] for name in used], outputs=[output])
        if scopes is not None:
            node.metadata_props[SCOPES] = str(scopes)
        by_name[output.name] = output
        made.append(node)
    graph = ir.Graph(inputs, outputs, nodes=made, initializers=initializers, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def test_axes_are_batch_and_sequence_everywhere():
    ids = make_value("ids", ["s18", "s41"], ir.DataType.INT64)
    mask = make_value("mask", ["s43", "s41"], ir.DataType.INT64)
    hidden, flat = make_value("hidden", ["s18", "s41", 8]), make_value("flat", ["s18*s41", "s4", 8])
    model = make_model([ids, mask], [flat], [("A", ["ids"], hidden, None), ("B", ["hidden", "mask"], flat, None)])
    name_axes(model)
    assert [str(dim) for dim in ids.shape] == ["batch", "sequence"]
    assert [str(dim) for dim in mask.shape] == ["batch", "sequence"]
    assert [str(dim) for dim in hidden.shape] == ["batch", "sequence", "8"]
    # s4 is not s41, nor a part of it.
    assert [str(dim) for dim in flat.shape] == ["batch*sequence", "s4", "8"]


def test_fixed_axes_stay_and_images_have_no_sequence():
    image = make_value("image", ["n", 3, "h", "w"])
    rows = make_value("rows", ["m", "k"])
    fixed = make_value("fixed", [2, 7], ir.DataType.INT64)
    out = make_value("out", ["n", "h"])
    model = make_model([image, rows, fixed], [out], [("A", ["image"], out, None)])
    name_axes(model)
    assert [str(dim) for dim in image.shape] == ["batch", "3", "h", "w"]
    assert [str(dim) for dim in rows.shape] == ["batch", "k"]
    assert list(fixed.shape) == [2, 7]
    assert [str(dim) for dim in out.shape] == ["batch", "h"]


def test_nameless_axes_get_names():
    ids = make_value("ids", [None, None], ir.DataType.INT64)
    out = make_value("out", [None, 4])
    name_axes(make_model([ids], [out], [("A", ["ids"], out, None)]))
    assert [str(dim) for dim in ids.shape] == ["batch", "sequence"]


def test_nodes_are_named_by_module_and_stay_unique():
    x = make_value("x", [2])
    values = [make_value(name, [2]) for name in "abcd"]
    scopes = ["", "encoder", "encoder.layer.0", "add"]
    model = make_model(
        [x],
        values[-1:],
        [
            ("Add", ["x"], values[0], scopes),
            ("Add", ["a"], values[1], scopes),
            ("Mul", ["b"], values[2], ["", "mul"]),
            ("Mul", ["c"], values[3], ["", "_empty_nn_module_stack_from_metadata_hook", "mul"]),
        ],
    )
    name_nodes(model)
    names = [node.name for node in model.graph]
    assert names == ["encoder.layer.0/Add", "encoder.layer.0/Add_2", "model/Mul", "model/Mul_2"]
    assert not any(node.metadata_props for node in model.graph)


def test_folded_weight_takes_the_name_of_its_module():
    x, out = make_value("x", [2, 3]), make_value("out", [2, 4])
    model = make_model(
        [x], [out], [("MatMul", ["x", "val_7"], out, ["", "head", "mm"])], [("val_7", np.ones((3, 4), np.float32))]
    )
    name_nodes(model)
    assert list(model.graph.initializers) == ["head.weight"]
    restored = ir.from_proto(ir.to_proto(model))
    assert restored.graph.initializers["head.weight"].const_value.name == "head.weight"


def test_weight_with_a_name_keeps_it():
    x, out = make_value("x", [2, 3]), make_value("out", [2, 4])
    model = make_model(
        [x], [out], [("MatMul", ["x", "table"], out, ["", "head", "mm"])], [("table", np.ones((3, 4), np.float32))]
    )
    name_nodes(model)
    assert list(model.graph.initializers) == ["table"]


@pytest.mark.parametrize("transposed", [False, True])
def test_weight_stored_twice_is_stored_once(transposed):
    table = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    other = table.copy()
    other[0, 1] += 1  # the same diagonal, another matrix
    x, y, z = make_value("x", [2, 16]), make_value("y", [2, 40]), make_value("z", [2, 40])
    copy = table.T.copy() if transposed else table.copy()
    model = make_model(
        [x],
        [y, z],
        [("A", ["x", "table", "other"], y, None), ("MatMul", ["x", "copy"], z, None)],
        [("table", table), ("other", other), ("copy", copy)],
    )
    share_tied_weights(model)
    assert list(model.graph.initializers) == ["table", "other"]
    user = next(node for node in model.graph if node.op_type == "MatMul")
    if transposed:
        assert user.inputs[1].producer().op_type == "Transpose"
        assert user.inputs[1].producer().inputs[0].name == "table"
        assert [str(dim) for dim in user.inputs[1].shape] == ["16", "40"]
    else:
        assert user.inputs[1].name == "table"
    assert [node.op_type for node in model.graph].index("MatMul") == len(model.graph) - 1


def test_weights_that_look_alike_stay_apart():
    zeros = np.zeros((40, 16), np.float32)
    ones = np.ones((40, 16), np.float32) - np.eye(40, 16, dtype=np.float32)
    x, y = make_value("x", [2, 16]), make_value("y", [2, 40])
    model = make_model([x], [y], [("A", ["x", "a", "b"], y, None)], [("a", zeros), ("b", ones)])
    share_tied_weights(model)
    assert len(model.graph.initializers) == 2
