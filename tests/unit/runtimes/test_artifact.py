"""Artifacts, hashes and manifests: to JSON and back, and refused where they are harmed."""

import hashlib
import json

import pytest

from runtimes.artifact import (
    Artifact,
    Manifest,
    hash_file,
    hash_files,
    read_manifest,
    record_files,
    write_manifest,
)
from runtimes.errors import CorruptArtifact


def make_manifest(directory) -> Manifest:
    return Manifest(
        tool={"stepdown": "0"},
        source={"task": "fill-mask"},
        recipe={},
        steps=({"step": "fuse"},),
        artifacts={"onnxruntime": {"path": "m.onnx"}},
        files=record_files(directory),
        machine={},
    )


def test_a_manifest_comes_back_as_it_was(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "m.onnx").write_bytes(b"model")
    manifest = make_manifest(tmp_path)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    (record,) = manifest.files
    assert (record.path, record.bytes, record.sha256) == ("deep/m.onnx", 5, hashlib.sha256(b"model").hexdigest())
    assert record_files(tmp_path) == manifest.files, "the manifest itself is not among its files"


def test_hashes_of_one_and_of_more_files(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"a" * (3 << 20))
    two.write_bytes(b"b")
    assert hash_files((one,)) == hash_file(one) == hashlib.sha256(b"a" * (3 << 20)).hexdigest()
    assert hash_files((one, two)) != hash_files((two, one))


def test_size_counts_every_file(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"abc")
    two.write_bytes(b"de")
    artifact = Artifact(path=one, kind="onnx", sha256="", inputs=(), outputs=())
    assert artifact.size_bytes() == 3
    assert Artifact(path=one, kind="onnx", sha256="", inputs=(), outputs=(), files=(one, two)).size_bytes() == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no manifest"),
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"{}", "cannot be read"),
        (b'{"schema": 2}', "schema 2"),
        (b'{"schema": 1}', "lacks a part"),
        (b'{"schema": 1, "files": [{}], "steps": []}', "lacks a part"),
    ],
)
def test_a_harmed_manifest_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptArtifact, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"artifacts": []}, "artifacts is no object"),
        ({"artifacts": {"tensorrt": None}}, "artifacts.tensorrt is no object"),
        ({"source": "bert"}, "source is no object"),
        ({"machine": None}, "machine is no object"),
        ({"files": [{"path": 5, "bytes": 1, "sha256": ""}]}, "files has 5"),
    ],
)
def test_a_part_of_another_type_is_refused(tmp_path, part, message):
    path = write_manifest(tmp_path, make_manifest(tmp_path))
    path.write_text(json.dumps({**json.loads(path.read_text()), **part}))
    with pytest.raises(CorruptArtifact, match=message):
        read_manifest(tmp_path)


def test_an_unknown_part_is_refused(tmp_path):
    path = write_manifest(tmp_path, make_manifest(tmp_path))
    path.write_text(json.dumps({**json.loads(path.read_text()), "extra": 1}))
    with pytest.raises(CorruptArtifact):
        read_manifest(tmp_path)
