"""What is fuzzed: each reader of a bundle, as a function of bytes, with what must hold whatever the bytes are.

A target takes anything and raises nothing: what is refused is refused as a CorruptArtifact, and what is accepted keeps
its promises, which are asserted here: it comes back as it went, stays in its room, names only what is listed, and means
the same to the reader that comes after ours (protobuf for ONNX, safetensors, tokenizers).
"""

import hashlib
import json
import posixpath
import tempfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from safetensors import SafetensorError
from safetensors.numpy import load

from exporter.genai_config import describe
from runtimes.bundle.archive import Limits, open_archive
from runtimes.bundle.archive_format import GZIP_HEADER
from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import parse_description
from runtimes.bundle.fit import find_misfits
from runtimes.bundle.generation_safety import check_config
from runtimes.bundle.kernels import check_kernels
from runtimes.bundle.machine import Machine
from runtimes.bundle.onnx_safety import check_onnx
from runtimes.bundle.signature import parse_signatures
from runtimes.bundle.tensor_file import read_tensors
from runtimes.bundle.tokenizer_safety import check_tokenizer
from runtimes.errors import CorruptArtifact, DataError
from runtimes.generation.chat_template import check_chat_template, read_chat_template
from runtimes.generation.layout import CONFIG_NAME
from runtimes.generation.template_fence import MAX_SOURCE
from runtimes.generation.text_files import TEMPLATE, TextFiles
from runtimes.serving.tokenise import Tokeniser
from runtimes.trt.record import read_record
from tests.fuzz_bundle.edits import Bytes, dump, edit_json, edit_members
from tests.fuzz_bundle.guard import list_outside, watching
from tests.fuzz_bundle.tiny_tokenizers import make_tokenizers
from tests.unit.runtimes.bundle import real_bundle, tiny_bundle
from tests.unit.runtimes.generation import tiny_decoder

LIMITS = Limits(total_bytes=1 << 20, members=64)
_MACHINE = Machine(name="m", arch="x86_64", level="avx2", onnxruntime="1.31.1", memory_bytes=1 << 30, sm=89)
_FILES = ("model.onnx", "model.onnx.data", "sub/weights.bin")
_DATA = bytes(range(256)) * 4


@dataclass(frozen=True)
class Place:
    """A folder with a room in it, below the folder for temporary files."""

    base: Path
    room: Path


@cache
def _find_base():
    return tempfile.TemporaryDirectory(prefix="fuzz-bundle-")


@cache
def find_place():
    base = Path(_find_base().name)
    room = base / "room"
    room.mkdir()
    (base / "outside").write_bytes(_DATA)
    return Place(base=base, room=room)


def fuzz_description(data):
    """bundle.json: what is accepted comes back as it went, and can be judged for fit."""
    try:
        description = parse_description(data)
    except CorruptArtifact as error:
        _check_message(error)
        return
    assert parse_description(description.to_bytes()) == description
    for path in description.placed_files():
        place = Path("/room") / path
        assert place.is_relative_to("/room")
        assert posixpath.normpath(path) == path
        assert "\\" not in path
    for variant in description.variants:
        find_misfits(variant, _MACHINE)
        assert all(spec.name is not None for spec in (*variant.inputs, *variant.outputs))


def fuzz_description_edits(data):
    """bundle.json again, by edits of a good one."""
    fuzz_description(dump(edit_json(tiny_bundle.make_document(), data)))


def fuzz_archive(data):
    """The archive as a file: whatever is unpacked is listed and hashed, and lies in its room."""
    place = find_place()
    packed, target = place.room / "bundle", place.room / "target"
    packed.write_bytes(data)
    target.mkdir()
    try:
        with watching(place.room), open_archive(packed, LIMITS) as archive:
            archive.unpack(target)
            description = archive.description
    except CorruptArtifact as error:
        _check_message(error)
    else:
        for path, sha256 in description.placed_files().items():
            assert hashlib.sha256((target / path).read_bytes()).hexdigest() == sha256
    finally:
        _empty(target)
        packed.unlink()
    assert list_outside(place.base, place.room) == [place.base / "outside"]
    assert not any(place.room.iterdir())


def fuzz_tar(data):
    """The inside of the archive, in a gzip that is right."""
    packer = zlib.compressobj(0, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    tail = zlib.crc32(data).to_bytes(4, "little") + (len(data) % (1 << 32)).to_bytes(4, "little")
    fuzz_archive(GZIP_HEADER + body + tail)


def fuzz_members(data):
    """The inside of the archive, by edits of a good one."""
    fuzz_tar(edit_members(tiny_bundle.good_members(), data))


def fuzz_onnx(data):
    """The model: what is accepted names only listed files, also for protobuf, which reads it after us."""
    place = find_place()
    folder = place.room / "variant"
    _write(folder, {"model.onnx": data, "model.onnx.data": _DATA, "sub/weights.bin": _DATA})
    try:
        with watching(place.room):
            needs = check_onnx(folder, "model.onnx", _FILES)
            named = {extent.file for extent in needs.extents}
    except CorruptArtifact as error:
        _check_message(error)
        return
    finally:
        _empty(folder)
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
        _check_message(error)
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


def fuzz_tokenizer(data):
    """A tokenizer: what is accepted opens, and turns texts into tokens within bounds."""
    place = find_place()
    path = place.room / "tokenizer.json"
    path.write_bytes(data)
    try:
        check_tokenizer(path, "tokenizer")
        tokeniser = Tokeniser(path, (), 16)
        for encoding in tokeniser.encode([("A good film, was it? 123",), ("é\0", "two")]):
            assert len(encoding.ids) <= 16
    except (CorruptArtifact, DataError) as error:
        _check_message(error)
    finally:
        path.unlink()


def fuzz_tokenizer_edits(data):
    """A tokenizer, by edits of good ones of each kind."""
    source = Bytes(data)
    document = source.choose(make_tokenizers())
    fuzz_tokenizer(dump(edit_json(document, source.rest())))


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
    _write(folder, {"kernels/libstepdown_sparse.so": library})
    try:
        with watching(place.room):
            check_kernels(folder, variant, needed=bool(source.take() % 2))
    except (CorruptArtifact, FileNotFoundError) as error:  # a listed path is there, once the archive was unpacked
        _check_message(error)
    finally:
        _empty(folder)


def fuzz_signatures(data):
    """signatures.json."""
    try:
        found = parse_signatures(data)
    except CorruptArtifact as error:
        _check_message(error)
    else:
        assert all(len(signature.raw) == 64 for signature in found)


def fuzz_record(data):
    """The record beside a plan."""
    plan = find_place().room / "model.plan"
    path = plan.with_name("model.plan.json")
    path.write_bytes(data)
    try:
        read_record(plan)
    except CorruptArtifact as error:
        _check_message(error)
    finally:
        path.unlink()


def fuzz_contents(data):
    """A whole unpacked bundle with one file replaced: its hashes are right, and it is looked at from end to end."""
    place, source = find_place(), Bytes(data)
    home = place.room / "home"
    files = dict(read_home_files())
    name = source.choose([*sorted(files), "shared/NOTICE", "shared/x.json", "variants/here/x.bin"])
    files[name] = source.rest()
    _write(home, files)
    try:
        check_contents(home, real_bundle.describe(home))
    except CorruptArtifact as error:
        _check_message(error)
    finally:
        _empty(home)


def fuzz_template(data):
    """A chat template: it is refused or compiled. Not watched: jinja2 makes code anew for the traceback of an error."""
    texts = TextFiles(directory=find_place().room, contents={TEMPLATE: data})
    try:
        check_chat_template(texts)
        read_chat_template(texts)
    except CorruptArtifact as error:
        _check_message(error)
    else:
        assert len(data.decode("utf-8")) <= MAX_SOURCE


def fuzz_genai_config_edits(data):
    """genai_config.json, by edits of a good one: what is accepted names the model beside it, and no library."""
    place = find_place()
    folder, told = place.room / "variant", dump(edit_json(describe(tiny_decoder.FACTS), data))
    _write(folder, {CONFIG_NAME: told})
    try:
        with watching(place.room):
            check_config(folder, tiny_bundle.make_variant())
    except CorruptArtifact as error:
        _check_message(error)
    else:
        decoder = json.loads(told)["model"]["decoder"]
        assert (decoder["filename"], decoder["session_options"]) == ("model.onnx", {"provider_options": []})
    finally:
        _empty(folder)


TARGETS = {
    "description": fuzz_description,
    "description_edits": fuzz_description_edits,
    "archive": fuzz_archive,
    "tar": fuzz_tar,
    "members": fuzz_members,
    "onnx": fuzz_onnx,
    "onnx_fields": fuzz_onnx_fields,
    "tensors": fuzz_tensors,
    "tensors_edits": fuzz_tensors_edits,
    "tokenizer": fuzz_tokenizer,
    "tokenizer_edits": fuzz_tokenizer_edits,
    "kernels": fuzz_kernels,
    "signatures": fuzz_signatures,
    "record": fuzz_record,
    "contents": fuzz_contents,
    "template": fuzz_template,
    "genai_config_edits": fuzz_genai_config_edits,
}


@cache
def read_home_files():
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        real_bundle.write_home(home)
        return tuple(
            (path.relative_to(home).as_posix(), path.read_bytes()) for path in home.rglob("*") if path.is_file()
        )


def _check_message(error):
    """A refusal can be printed: one that carries what a terminal obeys is an attack on who reads it."""
    text = str(error)
    assert all(mark not in text for mark in "\x1b\x07\x9b\r"), text
    assert len(text) < 4000, text


def _write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _empty(folder):
    if not folder.exists():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()


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
