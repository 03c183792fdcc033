"""A bundle of the decoder of two layers, as `stepdown pack` writes it, and ways to spoil it with every hash right."""

import hashlib
import json
from dataclasses import replace

from safetensors.numpy import load, save

from exporter.packing.options import PackOptions
from exporter.packing.pack import pack
from exporter.progress import SilentProgress
from runtimes.bundle.archive import open_archive
from runtimes.bundle.archive_writer import write_archive
from tests.unit.runtimes.generation.tiny_decoder import write_artifact


def pack_decoder(folder, *devices, **options):
    """Export and pack the decoder; return the archive and the exported directory."""
    exported = folder / "exported"
    if not exported.exists():
        write_artifact(exported)
    archive = folder / "words.stepdown.tar.gz"
    pack(
        PackOptions(exports=(exported,), output=archive, devices=devices, name="words", force=True, **options),
        SilentProgress(),
    )
    return archive, exported


def read_archive(path):
    """Return the description and what is in each blob, by its sha256."""
    with open_archive(path) as archive:
        return archive.description, {sha256: b"".join(pieces) for sha256, pieces in archive.blobs()}


def change(source, target, *, shared=None, own=None, variant=None, **changes):
    """Write an archive in which files are others, or are gone (None), and the description says so.

    Args:
        source: The archive to change.
        target: Where the other one goes.
        shared: Contents by path, of what all variants share.
        own: Contents by path, of every variant.
        variant: Fields of every variant.
        changes: Fields of the description.
    """
    description, blobs = read_archive(source)
    blobs |= {hash_bytes(data): data for data in ((shared or {}) | (own or {})).values() if data is not None}
    described = replace(
        description,
        files=swap(description.files, shared or {}),
        variants=tuple(
            replace(one, files=swap(one.files, own or {}), **(variant or {})) for one in description.variants
        ),
        **changes,
    )
    used = set(described.placed_files().values())
    described = replace(described, blobs={name: len(data) for name, data in blobs.items() if name in used})
    write_archive(target, described, {name: blobs[name] for name in described.blobs}, None)
    return target


def swap(files, contents):
    told = {**files, **{path: hash_bytes(data) for path, data in contents.items() if data is not None}}
    return {path: sha256 for path, sha256 in sorted(told.items()) if contents.get(path, b"") is not None}


def read_own(archive, path):
    """Return what is in a file of the first variant."""
    description, blobs = read_archive(archive)
    return blobs[description.variants[0].files[path]]


def edit_config(archive, edit):
    """Return a ``genai_config.json`` that was edited in place."""
    told = json.loads(read_own(archive, "genai_config.json"))
    edit(told)
    return json.dumps(told).encode()


def edit_probe(archive, path, **arrays):
    """Return a probe with other arrays under the names given, dots written as underscores."""
    found = load(read_own(archive, path))
    return save({**found, **{name.replace("_", "."): array for name, array in arrays.items()}})


def hash_bytes(data):
    return hashlib.sha256(data).hexdigest()
