"""What is fuzzed of a bundle as a whole: its description, its archive, its signatures, and a layout it comes in."""

import hashlib
import json
import posixpath
import tempfile
import zlib
from functools import cache
from pathlib import Path

from exporter.packing.oci import write_layout
from runtimes.bundle.archive import Limits, open_archive
from runtimes.bundle.archive_format import GZIP_HEADER
from runtimes.bundle.description import parse_description
from runtimes.bundle.fit import find_misfits
from runtimes.bundle.machine import Machine
from runtimes.bundle.oci_layout import archive_layout
from runtimes.bundle.signature import parse_signatures
from runtimes.bundle.strict_json import dump_json
from runtimes.errors import CorruptArtifact
from tests.fuzz_bundle.edits import Bytes, dump, edit_json, edit_members
from tests.fuzz_bundle.guard import list_outside, watching
from tests.fuzz_bundle.places import check_message, empty, find_place, write_files
from tests.unit.runtimes.bundle import tiny_bundle

LIMITS = Limits(total_bytes=1 << 20, members=64)
_MACHINE = Machine(name="m", arch="x86_64", level="avx2", onnxruntime="1.31.1", memory_bytes=1 << 30, sm=89)
_BLOBS = "blobs/sha256/"


def fuzz_description(data):
    """bundle.json: what is accepted comes back as it went, and can be judged for fit."""
    try:
        description = parse_description(data)
    except CorruptArtifact as error:
        check_message(error)
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
        check_message(error)
    else:
        for path, sha256 in description.placed_files().items():
            assert hashlib.sha256((target / path).read_bytes()).hexdigest() == sha256
    finally:
        empty(target)
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


def fuzz_signatures(data):
    """signatures.json."""
    try:
        found = parse_signatures(data)
    except CorruptArtifact as error:
        check_message(error)
    else:
        assert all(len(signature.raw) == 64 for signature in found)


def fuzz_oci_layout(data):
    """An OCI layout with one document replaced or edited, all digests right: what is made of it is a whole bundle."""
    place, source = find_place(), Bytes(data)
    layout, output = place.room / "layout", place.room / "bundle"
    write_files(layout, _spoil_layout(source))
    try:
        with watching(place.room):
            description = archive_layout(layout, output)
            with open_archive(output, LIMITS) as archive:
                archive.check()
                assert archive.description == description
    except CorruptArtifact as error:
        check_message(error)
    finally:
        empty(layout)
        output.unlink(missing_ok=True)
    assert list_outside(place.base, place.room) == [place.base / "outside"]
    assert not any(place.room.iterdir())


def _spoil_layout(source):
    """Return the files of a layout in which one document is another: the index, the manifest, or the description."""
    files = dict(read_layout_files())
    index = json.loads(files["index.json"])
    manifest = json.loads(files.pop(_locate(index["manifests"][0])))
    spoilt, is_edit = source.take() % 3, source.take() % 2
    if spoilt == 0:
        layer = manifest["layers"][0]
        head = files.pop(_locate(layer))
        layer["digest"] = _add(
            files, dump_json(edit_json(json.loads(head), source.rest())) if is_edit else source.rest()
        )
    told = dump(manifest)
    if spoilt == 1:
        told = dump(edit_json(manifest, source.rest())) if is_edit else source.rest()
    index["manifests"][0]["digest"] = _add(files, told)
    files["index.json"] = dump(index)
    if spoilt == 2:
        files["index.json"] = dump(edit_json(index, source.rest())) if is_edit else source.rest()
    return files


def _locate(descriptor):
    return _BLOBS + descriptor["digest"].removeprefix("sha256:")


def _add(files, data):
    sha256 = hashlib.sha256(data).hexdigest()
    files[_BLOBS + sha256] = data
    return f"sha256:{sha256}"


@cache
def read_layout_files():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_layout(folder, tiny_bundle.make_description(), tiny_bundle.BLOBS, b"signed")
        return tuple(
            (path.relative_to(folder).as_posix(), path.read_bytes()) for path in folder.rglob("*") if path.is_file()
        )
