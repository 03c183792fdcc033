"""ONNX files of a bundle: external data stays in listed files, and operators are of libraries that are here."""

from dataclasses import replace

import onnx
import pytest
from onnx import helper

from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import Rebuild
from runtimes.bundle.onnx_safety import check_onnx
from runtimes.bundle.rebuild import describe_build
from runtimes.errors import CorruptArtifact
from runtimes.trt.options import BuildOptions
from tests.unit.runtimes.bundle.real_bundle import TABLE, describe, make_custom, make_model
from tests.unit.runtimes.bundle.refusal import put_external, refuse

RECIPE = describe_build("tensorrt", BuildOptions())
SIZE = str(TABLE.nbytes)


@pytest.mark.parametrize("entries", [[], [("offset", "0"), ("length", SIZE)], [("length", SIZE)], [("offset", "8")]])
def test_external_data_inside_the_bundle_passes(home, variant, entries):
    padding = bytes(int(dict(entries).get("offset", "0")))
    put_external(variant, [("location", "model.onnx.data"), *entries], padding + TABLE.tobytes() + bytes(4096))
    check_contents(home, describe(home))


@pytest.mark.parametrize("name", ["model.onnx.data", "weights.bin", "model.onnx_data", "parts/1.data"])
def test_external_data_is_called_like_weights(home, variant, name):
    put_named(variant, name)
    check_contents(home, describe(home))


@pytest.mark.parametrize("name", ["model.pkl", "x.pt", "run.sh", "evil.so", "weights", "x.data.py"])
def test_external_data_under_other_names_is_refused(home, variant, name):
    put_named(variant, name)
    refuse(home, "called like no weights")


def put_named(variant, name):
    (variant / name).parent.mkdir(exist_ok=True)
    (variant / name).write_bytes(TABLE.tobytes())
    put_external(variant, [("location", name)])


@pytest.mark.parametrize(
    ("offset", "data", "place"),
    [
        ("0", TABLE.tobytes() + b"hidden", "64 to 70"),
        ("8", b"hidden\0\0" + TABLE.tobytes(), "0 to 8"),
        ("0", TABLE.tobytes() + bytes(3 << 20) + b"x", "64 to 3,145,793"),
    ],
)
def test_external_data_hides_nothing_beside_its_tensors(home, variant, offset, data, place):
    put_external(variant, [("location", "model.onnx.data"), ("offset", offset)], data)
    error = refuse(home, f"{place} belong to no tensor")
    assert error.where == "model.onnx.data"


def test_two_graphs_may_share_their_weights(home, variant):
    """Each reads a part of the file; together they read all of it."""
    for graph, offset in (("model.onnx", "0"), ("lowered.onnx", SIZE)):
        entries = [("location", "model.onnx.data"), ("offset", offset)]
        (variant / graph).write_bytes(make_model(external=entries))
    (variant / "model.onnx.data").write_bytes(TABLE.tobytes() * 2)
    check_contents(home, describe(home, rebuild=Rebuild(graph="lowered.onnx", options=RECIPE)))


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../../shared/config.json",
        "../other/model.onnx.data",
        "./model.onnx.data",
        "a/../model.onnx.data",
        "*/_ORT_MEM_ADDR_/*",
        "C:\\data",
        "",
        ".hidden",
    ],
)
def test_external_data_outside_of_the_bundle_is_refused(home, variant, location):
    put_external(variant, [("location", location)], TABLE.tobytes())
    refuse(home, "not allowed")


def test_external_data_that_is_not_listed_is_refused(home, variant):
    put_external(variant, [("location", "model.onnx.data")], TABLE.tobytes())
    description = describe(home)
    (variant,) = description.variants
    files = {path: sha256 for path, sha256 in variant.files.items() if path != "model.onnx.data"}
    with pytest.raises(CorruptArtifact, match=r"'model.onnx.data' is not listed"):
        check_contents(home, replace(description, variants=(replace(variant, files=files),)))


def test_a_model_is_no_external_data_of_itself(variant):
    (variant / "model.data").write_bytes(make_model(external=[("location", "model.data"), ("length", SIZE)]))
    with pytest.raises(CorruptArtifact, match="is not listed"):
        check_onnx(variant, "model.data", ("model.data",))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("offset", "-8")], "no number"),
        ([("offset", "0x8")], "no number"),
        ([("offset", "8")], "ends at byte 72"),
        ([("offset", "9" * 18)], "ends at byte"),
        ([("offset", "9" * 400)], "no number"),
        ([("offset", "٣")], "no number"),
        ([("length", "1")], "1 bytes, 64 belong"),
        ([("length", "65")], "65 bytes, 64 belong"),
        ([("location", "other")], "not whole"),
        ([("basepath", "/etc")], "not known"),
    ],
)
def test_external_data_outside_of_its_file_is_refused(home, variant, entries, message):
    put_external(variant, [("location", "model.onnx.data"), *entries], TABLE.tobytes())
    refuse(home, message)


def test_external_data_without_a_place_is_refused(home, variant):
    put_external(variant, [])
    refuse(home, "not whole")


def test_the_graph_to_build_a_plan_from_is_looked_at_too(home, variant):
    (variant / "lowered.onnx").write_bytes(make_model(external=[("location", "../x")]))
    refuse(home, "not allowed", rebuild=Rebuild(graph="lowered.onnx", options=RECIPE))


@pytest.mark.parametrize("graph", ["model.onnx", "lowered.onnx"])
def test_graphs_to_train_with_are_refused(home, variant, graph):
    """They may name files as the model's own graph does, and nothing here walks them."""
    model = onnx.load_from_string(make_model())
    tensor = model.training_info.add().initialization.initializer.add(name="x", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    (variant / graph).write_bytes(model.SerializeToString())
    rebuild = None if graph == "model.onnx" else Rebuild(graph=graph, options=RECIPE)
    error = refuse(home, "to train it with", rebuild=rebuild)
    assert error.where == f"{graph}: training_info"


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("graph", ["model.onnx", "lowered.onnx"])
def test_what_is_no_tensor_is_refused(home, variant, side, graph):
    rebuild = None if graph == "model.onnx" else Rebuild(graph=graph, options=RECIPE)
    for make in (helper.make_sequence_type_proto, helper.make_optional_type_proto):
        model = onnx.load_from_string(make_model())
        kind = make(helper.make_tensor_type_proto(onnx.TensorProto.INT64, None))
        getattr(model.graph, side).append(helper.make_value_info("several", kind))
        (variant / graph).write_bytes(model.SerializeToString())
        error = refuse(home, "is not a tensor", rebuild=rebuild)
        assert error.where == f"{graph}: several"


@pytest.mark.parametrize("domain", ["com.evil", "ai.onnx.contrib", "ai.stepdown.other", "AI.ONNX"])
def test_operators_of_unknown_libraries_are_refused(home, variant, domain):
    (variant / "model.onnx").write_bytes(make_custom(domain))
    refuse(home, "nothing here stands for")


@pytest.mark.parametrize("name", ["EPContext", "PythonOp", "TritonOp", "ATen", "Snpe"])
def test_operators_that_open_files_or_run_code_are_refused(home, variant, name):
    (variant / "model.onnx").write_bytes(make_custom("com.microsoft", name))
    refuse(home, "opens files or runs code")


def test_operators_of_kernels_that_are_not_there_are_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    refuse(home, "kernels that are not in the bundle")
