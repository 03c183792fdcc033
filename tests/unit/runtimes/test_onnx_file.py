"""The header reader against onnx's own writer: every way a file can hold, hide or lose its weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.onnx_file import DTYPES, count_contents, locate_external_data, read_header

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


def field(number, payload):
    """A length-delimited protobuf field, written by hand where onnx would not write it."""
    size, head = len(payload), bytearray(varint(number << 3 | 2))
    return bytes(head + varint(size) + payload)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return out


def write_raw(path, tensor=b"", graph=b""):
    """A model of one initializer, and further bytes of the graph and the model."""
    inner = field(1, b"") + field(5, tensor) + graph
    path.write_bytes(field(7, inner) + field(8, b""))
    return path


def entry(key, value):
    return field(13, field(1, key) + field(2, value))


def test_places_sizes_and_operators_are_read(tmp_path):
    header = read_header(write(tmp_path / "m.onnx", initializers=[external_tensor("w", "weights.bin")]))
    (tensor,) = header.tensors
    assert (tensor.name, tensor.size_bytes, dict(tensor.entries)["location"]) == ("w", 64, "weights.bin")
    assert header.operators == (("", "MatMul"),)
    assert header.domains == ("",)


def test_functions_and_their_defaults_are_looked_into(tmp_path):
    function = helper.make_function(
        "local", "f", [], ["o"], [helper.make_node("Add", ["a", "a"], ["o"])], [helper.make_opsetid("", 17)]
    )
    function.attribute_proto.append(helper.make_attribute("default", external_tensor("d", "default.bin")))
    header = read_header(write(tmp_path / "m.onnx", functions=[function]))
    assert header.functions == (("local", "f"),)
    assert header.external == ("default.bin",)


def test_what_other_readers_would_read_otherwise_is_refused(tmp_path):
    """Of a field that is there twice protobuf takes the last: a second location must not hide behind the first."""
    two = field(13, field(1, b"location") + field(2, b"inside") + field(2, b"../outside"))
    with pytest.raises(CorruptArtifact, match="field 2 is there 2 times"):
        read_header(write_raw(tmp_path / "m.onnx", two))
    path = write(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes() + field(7, b""))
    with pytest.raises(CorruptArtifact, match="it holds 2 graphs"):
        read_header(path)


def test_a_field_number_that_others_cut_short_is_refused(tmp_path):
    path = write_raw(tmp_path / "m.onnx", graph=bytes(varint((1 << 32 | 5) << 3)) + b"\0")
    with pytest.raises(CorruptArtifact, match="field number 4294967301"):
        read_header(path)


def test_graphs_in_graphs_end_somewhere(tmp_path):
    graph = field(1, b"")
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    for read in (read_header, count_contents):
        with pytest.raises(CorruptArtifact, match="nested deeper than 32"):
            read(write_raw(tmp_path / "m.onnx", graph=graph))


def test_axes_without_end_are_refused(tmp_path):
    for dims in (field(1, b"\x7f" * 100_000), b"\x08\x7f" * 100):
        path = write_raw(tmp_path / "m.onnx", b"\x10\x01" + dims + entry(b"location", b"w"))
        with pytest.raises(CorruptArtifact, match="more than 64 axes"):
            read_header(path)


def test_a_name_of_megabytes_is_refused(tmp_path):
    with pytest.raises(CorruptArtifact, match="a name of 100,000 bytes"):
        read_header(write_raw(tmp_path / "m.onnx", entry(b"location", b"x" * 100_000)))


def test_fields_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("runtimes.onnx_file._MAX_FIELDS", 1000)
    with pytest.raises(CorruptArtifact, match="more than 1,000 fields"):
        read_header(write_raw(tmp_path / "m.onnx", graph=b"\x08\x00" * 1000))


@pytest.mark.parametrize(
    ("kind", "dims", "size"), [(22, (3, 3), 5), (10, (4, 4), 32), (16, (0, 4), 0), (99, (1,), None)]
)
def test_sizes_follow_types_and_shapes(tmp_path, kind, dims, size):
    tensor = TensorProto(name="w", dims=dims)
    raw = tensor.SerializeToString() + bytes([0x10, kind]) + entry(b"location", b"w")
    (found,) = read_header(write_raw(tmp_path / "m.onnx", raw)).tensors
    assert found.size_bytes == size
