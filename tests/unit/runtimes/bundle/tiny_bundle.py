"""A small description and archive of it, made of bytes without meaning, and archives with anything wrong in them."""

import gzip
import hashlib
import io
import json
import tarfile

from runtimes.bundle.archive_format import END, GZIP_HEADER, make_header, padding
from runtimes.bundle.archive_writer import write_archive
from runtimes.bundle.description import BundleDescription, Probe, Requirements, Variant
from runtimes.parity import Tolerance

CONTENTS = {
    "tokenizer.json": b"{}",
    "model.onnx": b"not really a model" * 100,
    "probe/inputs.safetensors": b"inputs",
    "probe/outputs.safetensors": b"outputs",
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


BLOBS = {sha256(data): data for data in CONTENTS.values()}


def make_variant(name="x86-64-avx2", **changes):
    files = {path: sha256(data) for path, data in CONTENTS.items() if path != "tokenizer.json"}
    parts = {
        "runtime": "onnxruntime",
        "model": "model.onnx",
        "files": files,
        "artifact": {
            "isa": "avx2",
            "exact_on_any_cpu": True,
            "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}],
        },
        "device": {"name": name},
        "requires": Requirements(
            arch="x86_64", isa=None, onnxruntime=">=1.24", memory_bytes=1 << 20, sm=None, tensorrt=None
        ),
        "rebuild": None,
        "probe": Probe(
            inputs="probe/inputs.safetensors",
            outputs="probe/outputs.safetensors",
            tolerance=Tolerance(atol=1e-4, rtol=1e-4, reason="the same arithmetic"),
            made_with={"isa": "avx2"},
        ),
    }
    return Variant(name=name, **{**parts, **changes})


def make_description(**changes):
    parts = {
        "name": "tiny",
        "version": 3,
        "tool": {"stepdown": "0.1.0"},
        "task": "text-classification",
        "labels": ("negative", "pösitive"),
        "max_length": 128,
        "blobs": {name: len(data) for name, data in BLOBS.items()},
        "files": {"tokenizer.json": sha256(CONTENTS["tokenizer.json"])},
        "variants": (make_variant(),),
        "policy": ("plan", "rebuild", "cpu"),
        "provenance": {"source": {"sha256": "0" * 64, "ratio": 0.1}, "steps": []},
        "licence": "Apache-2.0",
    }
    return BundleDescription(**{**parts, **changes})


def make_document(**changes):
    """The description as JSON values, to put wrong ones in."""
    return {**json.loads(make_description().to_bytes()), **changes}


def write_bundle(path, signatures=None, description=None):
    write_archive(path, description or make_description(), BLOBS, signatures)
    return path


def good_members():
    """Names and contents of a whole archive, in order."""
    return [
        ("bundle.json", make_description().to_bytes()),
        *((f"blobs/sha256/{name}", BLOBS[name]) for name in sorted(BLOBS)),
    ]


def make_tar(members):
    """The inside of an archive of these members, whatever they are."""
    return b"".join(make_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members) + END


def make_gzip(inside):
    return GZIP_HEADER + gzip.compress(inside, 9)[10:]


def make_foreign_tar(members, format=tarfile.USTAR_FORMAT):
    """A tar by Python's own library, of ``TarInfo`` and content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
