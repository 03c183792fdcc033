"""The engine inspector's JSON, in the forms of TensorRT 10 and 11."""

import json

import pytest

from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.trt.inspector import find_unpicked, read_layers, require_picked
from runtimes.trt.options import Expectation


def layer(name, told, *, nodes=("mm",), tactic="", **more):
    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    return {
        "Name": name,
        "LayerType": "gemm",
        "Inputs": [told],
        "Outputs": [],
        "TacticName": tactic,
        "Metadata": metadata,
        **more,
    }


def text(*layers):
    return json.dumps({"Layers": list(layers), "I/O Tensors": []})


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        ({"Format/Datatype": "Int8 NC/32HW32 format"}, "int8"),
        ({"Format": "Row major linear", "DataType": "INT8"}, "int8"),
        ({"Format/Datatype": "Row major linear FP16 format"}, "float16"),
        ({"DataType": "BFloat16"}, "bfloat16"),
        ({"DataType": "Float"}, "float32"),
        ({"DataType": "UINT8"}, "uint8"),
    ],
)
def test_types_of_both_versions(told, precision):
    assert read_layers(text(layer("a", told)))[0].precision == precision


def test_fused_nodes_are_found_by_name():
    (row,) = read_layers(text(layer("qkv", {"DataType": "INT8"}, nodes=("q", "k", "v"))))
    assert row.nodes == ("q", "k", "v")


def test_sparse_by_flag_or_by_kernel():
    rows = read_layers(
        text(layer("a", {}, HasSparseWeights=1), layer("b", {}, tactic="sm80_xmma_sparse_gemm"), layer("c", {}))
    )
    assert [row.sparse for row in rows] == [True, True, False]


def test_what_was_not_picked_is_an_error_that_names_it():
    rows = read_layers(text(layer("a", {"DataType": "INT8"}), layer("b", {"DataType": "HALF"}, nodes=("ffn",))))
    expected = Expectation(int8=("mm", "ffn", "gone"), sparse=("mm",))
    assert find_unpicked(rows, expected) == (("ffn", "gone"), ("mm",))
    with pytest.raises(UnsupportedModel, match=r"2 of 3 layers do not run in INT8: ffn, gone; 1 of 1 .*dense"):
        require_picked(rows, expected)
    require_picked(rows, Expectation(int8=("mm",)))


def test_a_node_in_several_layers_counts_by_the_one_that_is_as_asked():
    rows = read_layers(
        text(
            layer("product", {"DataType": "INT8"}, nodes=("mm",), tactic="sparse"),
            layer("around it", {"DataType": "HALF"}, nodes=("mm", "gelu")),
        )
    )
    assert find_unpicked(rows, Expectation(int8=("mm", "gelu"), sparse=("mm", "gelu"))) == (("gelu",), ("gelu",))


def test_each_profile_must_run_as_asked():
    rows = read_layers(text(layer("a", {"DataType": "INT8"}), layer("a [profile 1]", {"DataType": "HALF"})))
    assert find_unpicked(rows, Expectation(int8=("mm",))) == (("mm",), ())
    assert find_unpicked(rows[:1], Expectation(int8=("mm",))) == ((), ())


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"Layers": ["names", "only"]}'])
def test_another_answer_is_refused(broken):
    with pytest.raises(CorruptArtifact):
        read_layers(broken)
