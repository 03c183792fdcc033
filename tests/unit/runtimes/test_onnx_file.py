"""The header reader against onnx's own writer: every way a file can hold, hide or lose its weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.onnx_file import DTYPES, locate_external_data, read_header

WEIGHT = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")


def external_tensor(name, location):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4, 4])
    onnx.external_data_helper.set_external_data(tensor_with_data(tensor), location)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    return tensor


def tensor_with_data(tensor):
    tensor.raw_data = bytes(64)
    return tensor


def write(path, *, inputs=None, outputs=None, nodes=None, initializers=(WEIGHT,), functions=()):
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, functions=functions).SerializeToString())
    return path


def test_reads_names_types_and_axes(tmp_path):
    header = read_header(write(tmp_path / "m.onnx"))
    assert header.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
    assert header.outputs == (TensorSpec(name="y", dtype="float32", shape=("batch", 4)),)
    assert header.external == ()


def test_every_onnx_type_has_its_name():
    for name, code in TensorProto.DataType.items():
        if code in DTYPES and code not in {8, 16}:
            assert DTYPES[code] == np.dtype(helper.tensor_dtype_to_np_dtype(code)).name, name


def test_unnamed_and_negative_axes_are_dynamic_and_distinct(tmp_path):
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, -1])]
    (x,) = read_header(write(tmp_path / "m.onnx", inputs=values)).inputs
    assert x.shape == ("x.0", "x.1")


def test_initializers_listed_as_inputs_are_not_inputs(tmp_path):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 4]), ("w", [4, 4]))]
    assert [spec.name for spec in read_header(write(tmp_path / "m.onnx", inputs=values)).inputs] == ["x"]


def test_external_data_is_found_wherever_it_hides(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external_tensor("c", "subgraph.bin"))], "then", [], []
    )
    nodes = [
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["k"], value=external_tensor("k", "attribute.bin")),
    ]
    constant = helper.make_node("Constant", [], ["o"], value=external_tensor("o", "function.bin"))
    function = helper.make_function("local", "f", [], ["o"], [constant], [helper.make_opsetid("", 17)])
    path = write(
        tmp_path / "m.onnx",
        nodes=nodes,
        initializers=[external_tensor("w", "weights.bin"), external_tensor("v", "weights.bin")],
        functions=[function],
    )
    assert set(read_header(path).external) == {"weights.bin", "subgraph.bin", "attribute.bin", "function.bin"}


def test_the_domains_are_those_of_nodes_wherever_they_are(tmp_path):
    assert read_header(write(tmp_path / "plain.onnx")).domains == ("",)  # "local" is imported, and not used
    inner = helper.make_graph([helper.make_node("Inner", [], ["c"], domain="ai.inner")], "then", [], [])
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    called = helper.make_node("Called", [], ["o"], domain="ai.called")
    function = helper.make_function("local", "f", [], ["o"], [called], [helper.make_opsetid("ai.called", 1)])
    header = read_header(write(tmp_path / "nested.onnx", nodes=nodes, functions=[function]))
    assert set(header.domains) == {"", "ai.inner", "ai.called"}


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "link.bin", "folder/s.bin"]
)
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(b"x")
    (tmp_path / "s.bin").write_bytes(b"x")
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "folder").symlink_to(tmp_path)
    with pytest.raises(CorruptArtifact, match="outside the model's folder"):
        locate_external_data(inside / "m.onnx", (location,))


def test_external_data_inside_is_located_and_missing_is_said(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"x")
    assert locate_external_data(tmp_path / "m.onnx", ("sub/w.bin",)) == (tmp_path / "sub" / "w.bin",)
    with pytest.raises(CorruptArtifact, match=r"is missing: 'gone\.bin'"):
        locate_external_data(tmp_path / "m.onnx", ("gone.bin",))


def test_a_relative_model_path_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.bin").write_bytes(b"x")
    assert locate_external_data(Path("m.onnx"), ("w.bin",)) == (Path("w.bin"),)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is not a model", b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04rest of a zip", b"\x08\x07"],
    ids=["empty", "text", "zeros", "ones", "zip", "no graph"],
)
def test_what_is_not_a_model_is_corrupt(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"m\.onnx"):
        read_header(path)


def test_every_truncation_is_corrupt(tmp_path):
    whole = write(tmp_path / "m.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    second_import = len(whole) - len(b"B\x09\x0a\x05local\x10\x01")  # without it the file is a model still
    for length in range(1, second_import):
        cut.write_bytes(whole[:length])
        with pytest.raises(CorruptArtifact):
            read_header(cut)


def test_missing_file_and_folder_are_corrupt(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(CorruptArtifact, match="no such file"):
            read_header(path)


def test_an_input_that_is_a_sequence_is_unsupported(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    with pytest.raises(UnsupportedModel, match="at x"):
        read_header(write(tmp_path / "m.onnx", inputs=[sequence]))
