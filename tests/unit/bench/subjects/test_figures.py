import json
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.recordings.recording import Figures
from bench.subjects.figures import describe_figures
from bench.subjects.subject import SubjectSpec
from runtimes.errors import CorruptArtifact, UnsupportedModel


def describe(path, kind):
    return describe_figures(SubjectSpec(label="it", runtime="torch", device="cpu", model=path, kind=kind))


def test_a_plan_tells_its_size_alone(tmp_path):
    plan = tmp_path / "m.plan"
    plan.write_bytes(bytes(7))
    plan.with_name("m.plan.json").write_text("{}")
    assert describe(plan, "plan") == Figures(size_bytes=7)


def write_onnx(path):
    """Two nodes, a stored weight and bias, and a branch with a node and a constant of its own."""
    branch = helper.make_graph(
        [helper.make_node("Add", ["y", "shift"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(3, np.float32), "shift")],
    )
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["y"]),
        helper.make_node("If", ["flag"], ["out"], then_branch=branch, else_branch=branch),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.zeros((4, 3), np.int8), "w"),
            numpy_helper.from_array(np.zeros(3, np.float32), "b"),
            numpy_helper.from_array(np.array(1.0, np.float32), "scale"),
        ],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_onnx_counts_nodes_and_stored_elements_with_those_of_branches(tmp_path):
    path = write_onnx(tmp_path / "m.onnx")
    assert describe(path, "onnx") == Figures(
        size_bytes=path.stat().st_size, nodes=2 + 2, parameters=4 * 3 + 3 + 1 + 2 * 3
    )


def test_onnx_counts_weights_beside_it_without_reading_them(tmp_path):
    path = write_onnx(tmp_path / "m.onnx")
    inside = describe(path, "onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    weights = tmp_path / "w.bin"
    outside = describe(path, "onnx")
    assert (outside.nodes, outside.parameters) == (inside.nodes, inside.parameters)
    assert outside.size_bytes == path.stat().st_size + weights.stat().st_size


def test_packed_dimensions_are_read_like_single_ones(tmp_path):
    path = write_onnx(tmp_path / "m.onnx")
    # dims of w: two fields of number 1 (08 04 08 03) become one packed field (0a 02 04 03), of the same length.
    data = path.read_bytes()
    assert data.count(b"\x08\x04\x08\x03\x10\x03") == 1
    path.write_bytes(data.replace(b"\x08\x04\x08\x03\x10\x03", b"\x0a\x02\x04\x03\x10\x03"))
    assert describe(path, "onnx").parameters == 22


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x3a\x05ab"])
def test_a_missing_or_damaged_onnx_file_is_refused(tmp_path, content):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptArtifact):
        describe(path, "onnx")


def write_checkpoint(folder):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((4, 3), np.float32), "ids": np.zeros(7, np.int64)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")


def test_a_checkpoint_counts_its_floats_and_has_no_nodes(tmp_path):
    write_checkpoint(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert describe(tmp_path, "huggingface") == Figures(size_bytes=size, parameters=12)


def test_an_old_checkpoint_tells_its_size_alone(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"12345")
    assert describe(tmp_path, "huggingface") == Figures(size_bytes=5)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    with pytest.raises(CorruptArtifact, match="no weights"):
        describe(tmp_path, "huggingface")


def write_archive(path, *, weights, graph):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/models/model.json", json.dumps(graph))
        archive.writestr("m/data/weights/model_weights_config.json", json.dumps(weights))
    return path


GRAPH = {"graph_module": {"graph": {"nodes": [{}, {}]}}}


def weight(file, *sizes):
    return {"path_name": file, "tensor_meta": {"sizes": [{"as_int": size} for size in sizes]}}


def test_a_program_counts_tied_weights_once(tmp_path):
    weights = {"config": {"a": weight("weight_0", 4, 3), "tied": weight("weight_0", 4, 3), "b": weight("weight_1")}}
    path = write_archive(tmp_path / "m.pt2", weights=weights, graph=GRAPH)
    assert describe(path, "pt2") == Figures(size_bytes=path.stat().st_size, nodes=2, parameters=13)


def test_damaged_and_older_programs_are_refused(tmp_path):
    whole = write_archive(tmp_path / "m.pt2", weights={"config": {}}, graph=GRAPH)
    (tmp_path / "cut.pt2").write_bytes(whole.read_bytes()[:-10])
    for path in (tmp_path / "cut.pt2", tmp_path / "missing.pt2"):
        with pytest.raises(CorruptArtifact):
            describe(path, "pt2")
    with pytest.raises(UnsupportedModel, match="graph"):
        describe(write_archive(tmp_path / "odd.pt2", weights={"config": {}}, graph={}), "pt2")
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(UnsupportedModel, match="older format"):
        describe(tmp_path / "old.pt2", "pt2")
