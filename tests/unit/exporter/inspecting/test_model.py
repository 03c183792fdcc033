"""Inspection of a checkpoint, of ONNX files in float and Q/DQ form, and of what is no model."""

from types import MappingProxyType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from exporter.inspecting.model import inspect_model
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.sparse.storage import encode

RNG = np.random.default_rng(0)


def save_onnx(path, nodes, weights, width=32):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def test_a_checkpoint(tmp_path):
    sparse = RNG.normal(size=(64, 64)).astype(np.float32)
    np.put_along_axis(sparse.reshape(64, 16, 4), RNG.random((64, 16, 4)).argsort(axis=2)[..., :2], 0, axis=2)
    save_file(
        {
            "embeddings.word_embeddings.weight": RNG.normal(size=(50, 64)).astype(np.float32),
            "layer.0.dense.weight": sparse,
            "layer.0.dense.bias": np.zeros(64, np.float32),
            "embeddings.position_ids": np.arange(8).reshape(1, 8),
        },
        tmp_path / "model.safetensors",
    )
    found = inspect_model(tmp_path)
    assert (found.kind, found.parameters) == ("checkpoint", 50 * 64 + 64 * 64 + 64)
    layers = {layer.name: layer for layer in found.layers}
    assert set(layers) == {"embeddings.word_embeddings.weight", "layer.0.dense.weight"}
    dense = layers["layer.0.dense.weight"]
    assert (dense.op, dense.pattern, dense.zeros, dense.quantise, dense.prune) == (
        "Linear",
        "2:4",
        0.5,
        "int8",
        "GPU 2:4",
    )
    assert layers["embeddings.word_embeddings.weight"].quantise == "int8 table"
    assert found.mean_zeros() == pytest.approx(64 * 32 / (50 * 64 + 64 * 64))


def test_an_onnx_file_knows_which_way_a_matrix_lies(tmp_path):
    weight = np.ones((32, 16), np.float32)
    weight[1::4] = weight[2::4] = 0  # two of four along the inputs, which lie first in a MatMul
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="up"),
        helper.make_node("Gemm", ["h", "v"], ["y"], name="down", transB=1),
    ]
    save_onnx(tmp_path / "m.onnx", nodes, {"w": weight, "v": np.ones((8, 16), np.float32)})
    found = inspect_model(tmp_path / "m.onnx")
    assert [(layer.name, layer.pattern) for layer in found.layers] == [("up", "2:4"), ("down", "dense")]
    assert found.ops == {"MatMul": 1, "Gemm": 1}
    assert found.inputs == ("x float32 ['batch', 32]",)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "transposed"),
    [
        ("MatMul", ["x", "w"], {}, True),
        ("MatMul", ["w", "x"], {}, False),
        ("Gemm", ["x", "w"], {}, True),
        ("Gemm", ["x", "w"], {"transB": 1, "transA": 1}, False),
        ("Gemm", ["w", "x"], {"transB": 1}, False),
        ("Gemm", ["w", "x"], {"transA": 1}, True),
    ],
)
def test_a_matrix_is_seen_as_outputs_by_inputs_on_either_side(tmp_path, op, inputs, attributes, transposed):
    weight = np.ones((32, 32), np.float32)
    weight[:, 1::4] = weight[:, 2::4] = 0  # two of four along its rows
    nodes = [helper.make_node(op, inputs, ["y"], name="up", **attributes)]
    (layer,) = inspect_model(
        save_onnx(tmp_path / "m.onnx", nodes, {"w": weight.T.copy() if transposed else weight})
    ).layers
    assert layer.pattern == "2:4"


def test_quantised_weights_are_seen_through_their_dequantisation(tmp_path):
    weight = np.full((32, 16), 3, np.int8)
    weight[:, :8] = 7  # the zero point: these are the zeros
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wf"]),
        helper.make_node("MatMul", ["x", "wf"], ["y"], name="up"),
    ]
    weights = {"w": weight, "scale": np.float32(0.1), "zero": np.int8(7)}
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, weights)).layers
    assert (layer.quantise, layer.zeros) == ("is int8", 0.5)


@pytest.mark.parametrize(
    ("zero", "attributes"),
    [
        (np.arange(16, dtype=np.int8), {"axis": 1}),
        (np.repeat(np.arange(16, dtype=np.int8)[None], 4, axis=0), {"axis": 0, "block_size": 8}),
    ],
    ids=["by channel", "by block"],
)
def test_zero_points_of_their_own_are_each_a_zero(tmp_path, zero, attributes):
    weight = np.full((32, 16), 100, np.int8)
    weight[::2] = np.arange(16)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wf"], **attributes),
        helper.make_node("MatMul", ["x", "wf"], ["y"], name="up"),
    ]
    weights = {"w": weight, "scale": np.full(zero.shape, 0.1, np.float32), "zero": zero}
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, weights)).layers
    assert (layer.zeros, layer.dtype) == (0.5, "int8")


@pytest.mark.parametrize(("op", "domain"), [("MatMulInteger", ""), ("DynamicQuantizeMatMul", "com.microsoft")])
def test_an_operator_of_integers_has_its_own_zero_point(tmp_path, op, domain):
    weight = np.full((32, 16), 3, np.uint8)
    weight[:, :4] = 128
    inputs = ["x", "w", "", "zero"] if not domain else ["x", "w", "scale", "zero"]
    nodes = [helper.make_node(op, inputs, ["y"], name="up", domain=domain)]
    weights = {"w": weight, "scale": np.float32(0.1), "zero": np.uint8(128)}
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, weights)).layers
    assert (layer.quantise, layer.zeros) == ("is uint8", 0.25)


def test_zero_points_that_do_not_fit_are_not_guessed(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wf"], axis=1),
        helper.make_node("MatMul", ["x", "wf"], ["y"], name="up"),
    ]
    weights = {"w": np.zeros((32, 16), np.int8), "scale": np.ones(5, np.float32), "zero": np.zeros(5, np.int8)}
    found = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, weights))
    assert [(layer.zeros, layer.pattern) for layer in found.layers] == [(None, "quantised block-wise: not read")]
    assert found.mean_zeros() == 0


def _pack(levels, bits):
    """Pack uint8 [outputs, inputs] in blocks of 16 as MatMulNBits has them: [outputs, blocks, bytes]."""
    parts = levels.reshape(len(levels), -1, 16 * bits // 8, 8 // bits)
    return sum(parts[..., place] << (place * bits) for place in range(8 // bits)).astype(np.uint8)


def _write_packed(path, bits, weights=None, attributes=MappingProxyType({})):
    """Write a product of 32 inputs, of which every output reads half: in 2:4, along the inputs."""
    middle = 1 << (bits - 1)
    levels = np.full((24, 32), middle, np.uint8)
    levels[:, ::4] = levels[:, 1::4] = middle - 1
    arrays = {"w": _pack(levels, bits), "s": np.ones(24 * 2, np.float32), **(weights or {})}
    sizes = {"K": 32, "N": 24, "bits": bits, "block_size": 16} | attributes
    nodes = [helper.make_node("MatMulNBits", ["x", *arrays], ["y"], name="up", domain="com.microsoft", **sizes)]
    return save_onnx(path, nodes, arrays)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_of_few_bits_are_unpacked(tmp_path, bits):
    found = inspect_model(_write_packed(tmp_path / "m.onnx", bits))
    (layer,) = found.layers
    assert found.parameters == 24 * 32 + 24 * 2
    assert (layer.op, layer.shape, layer.parameters, layer.dtype) == ("MatMulNBits", (24, 32), 768, f"uint{bits}")
    assert (layer.zeros, layer.pattern, layer.quantise) == (0.5, "2:4", f"is uint{bits}")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_points_of_few_bits_are_unpacked(tmp_path, bits):
    levels = np.repeat([[0], [1]], 12, axis=0) * np.ones(16, int)  # of two blocks: the lowest level, and the next
    zero = _pack(levels.astype(np.uint8), bits)[:, 0, : -(-2 * bits // 8)]
    weight = {"w": np.zeros((24, 2, 2 * bits), np.uint8), "s": np.ones(48, np.float32), "z": zero}
    (layer,) = inspect_model(_write_packed(tmp_path / "m.onnx", bits, weight)).layers
    assert (layer.zeros, layer.pattern) == (0.5, "rows")


@pytest.mark.parametrize(
    ("weights", "attributes"),
    [({}, {"weight_prepacked": 1}), ({"s": np.ones(5, np.float32)}, {}), ({}, {"bits": 3})],
    ids=["packed for one CPU", "not as it says", "bits that nothing has"],
)
def test_what_is_packed_otherwise_is_said_not_to_be_read(tmp_path, weights, attributes):
    found = inspect_model(_write_packed(tmp_path / "m.onnx", 4, weights, attributes))
    (layer,) = found.layers
    assert (layer.shape, layer.zeros, layer.pattern) == ((24, 32), None, "quantised block-wise: not read")
    assert (layer.prune, layer.stored) == ("-", "")


def test_other_operators_of_packed_weights_are_said_not_to_be_read(tmp_path):
    arrays = {"w": np.zeros(384, np.uint8), "s": np.ones(48, np.float32)}
    sizes = {"K": 32, "N": 24, "block_size": 16, "quant_type": 1}
    nodes = [helper.make_node("MatMulBnb4", ["x", *arrays], ["y"], name="up", domain="com.microsoft", **sizes)]
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, arrays)).layers
    assert (layer.shape, layer.pattern) == ((24, 32), "quantised block-wise: not read")


def _write_sparse(path, sizes=None, **changes):
    """Write a model of one sparse operator, whose weight is 64 x 32 with one of ten left, and what is to differ."""
    weight = (RNG.normal(size=(64, 32)) * (RNG.random((64, 32)) < 0.1)).astype(np.float32)
    stored = encode(weight, (1, 1))
    arrays = {"v": stored.values, "g": stored.gaps, "r": stored.row_starts, "b": np.zeros(64, np.float32), **changes}
    sizes = {"out_features": 64, "in_features": 32, "block_out": 1, "block_in": 1, **(sizes or {})}
    node = helper.make_node(
        "SparseLinear", ["x", *arrays], ["y"], name="up", domain="ai.stepdown", activation="none", **sizes
    )
    return weight, save_onnx(path, [node], arrays)


def test_a_sparse_operator_tells_what_it_stores(tmp_path):
    weight, path = _write_sparse(tmp_path / "m.onnx")
    (layer,) = inspect_model(path).layers
    assert (layer.name, layer.op, layer.shape, layer.dtype) == ("up", "SparseLinear", (64, 32), "float32")
    assert layer.zeros == pytest.approx(np.mean(weight == 0), abs=1e-6)
    assert (layer.pattern, layer.stored, layer.quantise) == ("unstructured", "1x1", "-")


def test_an_operator_of_ours_without_weights_is_none_of_them(tmp_path):
    node = helper.make_node("ScaledDotProductAttention", ["x", "x", "x"], ["y"], domain="ai.stepdown")
    assert inspect_model(save_onnx(tmp_path / "m.onnx", [node], {})).layers == ()


def test_a_damaged_sparse_operator_is_refused(tmp_path):
    _, path = _write_sparse(tmp_path / "m.onnx", g=np.zeros(3, np.uint8))
    with pytest.raises(CorruptArtifact, match="damaged"):
        inspect_model(path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"in_features": "32"},
        {"block_out": 1.0},
        {"block_out": 0},
        {"in_features": -5},
        {"in_features": 2**27},
        {"in_features": 2**62},
    ],
)
def test_a_sparse_operator_with_impossible_sizes_is_refused(tmp_path, sizes):
    _, path = _write_sparse(tmp_path / "m.onnx", sizes)
    with pytest.raises(CorruptArtifact) as refused:
        inspect_model(path)
    assert refused.value.cure


@pytest.mark.parametrize(
    "arrays",
    [
        {"g": np.uint8(0)},
        {"r": np.int32(0)},
        {"r": np.zeros((5, 13), np.int32)},
        {"r": np.full(65, np.nan, np.float32)},
        {"g": np.array([2**62])},
        {"v": np.array(["one"], object)},
    ],
)
def test_a_sparse_operator_with_arrays_of_another_kind_is_refused(tmp_path, arrays):
    _, path = _write_sparse(tmp_path / "m.onnx", **arrays)
    with pytest.raises(CorruptArtifact, match="damaged"):
        inspect_model(path)


def test_what_a_pruned_weight_would_take_stored_sparse(tmp_path):
    weight = (RNG.normal(size=(32, 64)) * (RNG.random((32, 64)) < 0.1)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="up")]
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, {"w": weight})).layers
    assert layer.stored == "1x1"
    assert layer.stored_bytes == {
        "float32": encode(weight.T.copy(), (1, 1)).size_bytes,
        "int8": encode((weight.T != 0).astype(np.int8), (1, 1)).size_bytes,
    }


def test_zeros_of_a_convolution_have_no_kernel(tmp_path):
    weight = (RNG.normal(size=(16, 16, 3, 3)) * (RNG.random((16, 16, 3, 3)) < 0.1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, {"w": weight})).layers
    assert (layer.stored, layer.prune) == ("", "none: no sparse kernels for convolutions")


def test_two_of_four_in_a_convolution_lies_along_its_channels(tmp_path):
    weight = np.ones((16, 16, 3, 3), np.float32)
    weight.reshape(16, 4, 4, 3, 3)[:, :, 1:3] = 0
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    (layer,) = inspect_model(save_onnx(tmp_path / "m.onnx", nodes, {"w": weight})).layers
    assert (layer.pattern, layer.prune, layer.stored, layer.quantise) == ("2:4", "GPU 2:4", "", "int8")


def test_external_data_outside_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_onnx(
        folder / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((32, 4), np.float32)}
    )
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    (tmp_path / "secret").write_bytes(b"\0" * 512)
    with pytest.raises(CorruptArtifact, match="outside"):
        inspect_model(path)


def test_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path, message in [
        (tmp_path / "absent", "no such model"),
        (tmp_path / "absent.safetensors", "no such model"),
        (tmp_path / "notes.txt", "not a model that can be inspected"),
        (tmp_path, "no .safetensors file"),
    ]:
        with pytest.raises(UnsupportedModel, match=message):
            inspect_model(path)


def test_a_file_that_only_claims_to_be_onnx(tmp_path):
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(CorruptArtifact):
        inspect_model(tmp_path / "m.onnx")


def test_a_manifest_without_a_model(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CorruptArtifact):
        inspect_model(tmp_path)
