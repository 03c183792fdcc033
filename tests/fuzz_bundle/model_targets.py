"""What is fuzzed of a variant: its model, its probe, its kernels, the record of a plan and the recipe for another."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from safetensors import SafetensorError
from safetensors.numpy import load

from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import parse_description
from runtimes.bundle.kernels import check_kernels
from runtimes.bundle.onnx_safety import check_onnx
from runtimes.bundle.rebuild import describe_build, read_rebuild
from runtimes.bundle.tensor_file import read_tensors
from runtimes.errors import CorruptArtifact
from runtimes.trt.options import BuildOptions, Expectation
from runtimes.trt.profiles import Profile
from runtimes.trt.record import read_record
from tests.fuzz_bundle.edits import Bytes, dump, edit_json
from tests.fuzz_bundle.guard import watching
from tests.fuzz_bundle.places import OUTSIDE as _DATA
from tests.fuzz_bundle.places import check_message, empty, find_place, write_files
from tests.unit.runtimes.bundle import real_bundle, tiny_bundle

_FILES = ("model.onnx", "model.onnx.data", "sub/weights.bin")
RECIPE = describe_build(
    "tensorrt",
    BuildOptions(
        profiles=(Profile(min=(1, 1), opt=(2, 8), max=(8, 64)),),
        sparse=True,
        workspace_bytes=1 << 30,
        optimization_level=3,
        expected=Expectation(int8=("a",), sparse=("b",)),
    ),
)


def fuzz_onnx(data):
    """The model: what is accepted names only listed files, also for protobuf, which reads it after us."""
    place = find_place()
    folder = place.room / "variant"
    write_files(folder, {"model.onnx": data, "model.onnx.data": _DATA, "sub/weights.bin": _DATA})
    try:
        with watching(place.room):
            needs = check_onnx(folder, "model.onnx", _FILES)
            named = {extent.file for extent in needs.extents}
    except CorruptArtifact as error:
        check_message(error)
        return
    finally:
        empty(folder)
    assert named <= set(_FILES)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return
    for tensor in _list_tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location == onnx.TensorProto.EXTERNAL or entries:
            assert entries["location"] in named, entries
            assert int(entries.get("offset", 0)) + int(entries.get("length", 0)) <= len(_DATA)
    for node in _list_nodes(model):
        assert node.op_type not in {"EPContext", "PythonOp"}
        functions = {(function.domain, function.name) for function in model.functions}
        known = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
        assert node.domain in known or (node.domain, node.op_type) in functions or needs.kernels


def fuzz_onnx_fields(data):
    """The fields of external data, in a model that is right."""
    source = Bytes(data)
    entries = []
    for _ in range(source.take() % 6):
        key = source.choose(["location", "offset", "length", "checksum", "basepath", ""])
        size = source.take() % 24
        drawn = source.rest()[:size].decode("latin-1")
        source.take(size)
        good = {"location": "model.onnx.data", "offset": "0", "length": "64"}
        entries.append((key, good.get(key, drawn) if source.take() % 2 else drawn))
    fuzz_onnx(real_bundle.make_model(external=entries))


def fuzz_tensors(data):
    """A probe: what is accepted reads alike with safetensors."""
    place = find_place()
    path = place.room / "probe.safetensors"
    path.write_bytes(data)
    try:
        with watching(place.room):
            found = read_tensors(path, "probe")
    except CorruptArtifact as error:
        check_message(error)
        return
    finally:
        path.unlink()
    try:
        expected = load(data)
    except (SafetensorError, ValueError):  # stricter than we are in something: a type or a name
        return
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert (array.dtype, array.shape, array.tobytes()) == (
            expected[name].dtype,
            expected[name].shape,
            expected[name].tobytes(),
        )


def fuzz_tensors_edits(data):
    """The header of a probe, by edits of a good one."""
    header = {
        "a": {"dtype": "I64", "shape": [2, 2], "data_offsets": [0, 32]},
        "b": {"dtype": "F16", "shape": [], "data_offsets": [32, 34]},
        "__metadata__": {"x": "y"},
    }
    text = dump(edit_json(header, data))
    fuzz_tensors(len(text).to_bytes(8, "little") + text + bytes(34))


def fuzz_kernels(data):
    """What is said of kernels, and their header."""
    place, source = find_place(), Bytes(data)
    folder = place.room / "variant"
    head = bytearray(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x03\x00\x3e\x00" + bytes(64))
    for _ in range(source.take() % 4):
        head[source.take() % len(head)] = source.take()
    library = bytes(head[: 84 - source.take() % 85])
    sha256 = hashlib.sha256(library).hexdigest()
    files = {"kernels/libstepdown_sparse.so": sha256, "model.onnx": "0" * 64}
    artifact = {"sparse_kernels": {"version": "0.1.0", "sha256": sha256}}
    edited = edit_json({"files": files, "artifact": artifact}, source.rest(), 3)
    listed, named = edited.get("files"), edited.get("artifact")
    if not isinstance(listed, dict) or not isinstance(named, dict):
        return
    variant = tiny_bundle.make_variant(files=listed, artifact=named)
    write_files(folder, {"kernels/libstepdown_sparse.so": library})
    try:
        with watching(place.room):
            check_kernels(folder, variant, needed=bool(source.take() % 2))
    except (CorruptArtifact, FileNotFoundError) as error:  # a listed path is there, once the archive was unpacked
        check_message(error)
    finally:
        empty(folder)


def fuzz_record(data):
    """The record beside a plan."""
    plan = find_place().room / "model.plan"
    path = plan.with_name("model.plan.json")
    path.write_bytes(data)
    try:
        read_record(plan)
    except CorruptArtifact as error:
        check_message(error)
    finally:
        path.unlink()


def fuzz_rebuild_edits(data):
    """The recipe of a plan, by edits of a good one: what is accepted comes back as it went."""
    document = tiny_bundle.make_document()
    document["variants"][0]["rebuild"] = edit_json({"graph": "model.onnx", "options": RECIPE}, data)
    try:
        rebuild = parse_description(dump(document)).variants[0].rebuild
        found = read_rebuild(rebuild.options)
    except CorruptArtifact as error:
        check_message(error)
        return
    assert rebuild.graph in document["variants"][0]["files"]
    assert read_rebuild(describe_build(found.library, found.build)) == found
    for profile in found.build.profiles:
        corners = zip(profile.min, profile.opt, profile.max, strict=True)
        assert all(1 <= low <= middle <= high for low, middle, high in corners)


def fuzz_contents(data):
    """A whole unpacked bundle with one file replaced: its hashes are right, and it is looked at from end to end."""
    place, source = find_place(), Bytes(data)
    home = place.room / "home"
    files = dict(read_home_files())
    name = source.choose([*sorted(files), "shared/NOTICE", "shared/x.json", "variants/here/x.bin"])
    files[name] = source.rest()
    write_files(home, files)
    try:
        check_contents(home, real_bundle.describe(home))
    except CorruptArtifact as error:
        check_message(error)
    finally:
        empty(home)


@cache
def read_home_files():
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        real_bundle.write_home(home)
        return tuple(
            (path.relative_to(home).as_posix(), path.read_bytes()) for path in home.rglob("*") if path.is_file()
        )


def _list_tensors(model):
    """Every tensor of a model, as protobuf reads it."""
    for graph in _list_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for attribute in _list_attributes(model):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)


def _list_graphs(model):
    found = [model.graph]
    for attribute in _list_attributes(model):
        found += [attribute.g, *attribute.graphs]
    return found


def _list_attributes(model):
    for function in model.functions:
        yield from function.attribute_proto
    for node in _list_nodes(model):
        yield from node.attribute


def _list_nodes(model):
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for function in model.functions:
        for attribute in function.attribute_proto:
            waiting += [node for graph in (attribute.g, *attribute.graphs) for node in graph.node]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += [inner for graph in (attribute.g, *attribute.graphs) for inner in graph.node]
