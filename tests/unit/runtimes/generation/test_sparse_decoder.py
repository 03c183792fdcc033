"""The sparse kernels in onnxruntime-genai: the same tokens as the dense model, through a library found by its name."""

import ctypes
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from runtimes.bundle.verify import VerifyOptions, verify_bundle
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from runtimes.sparse.library import describe_build
from runtimes.sparse.storage import encode
from tests.unit.runtimes.bundle.decoder_bundle import change, hash_bytes, pack_decoder, read_archive
from tests.unit.runtimes.generation.tiny_decoder import reference, seal, write_artifact, write_export
from tests.unit.runtimes.sparse.single_node import find_library, make_arrays, make_attributes

KERNELS = "kernels/libstepdown_sparse.so"
SHORT = GenerationOptions(max_new_tokens=16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sparse(tmp_path):
    """(a decoder whose head is pruned and stored sparsely, the same one stored densely)."""
    find_library()
    dense, sparse = write_export(tmp_path / "dense"), write_export(tmp_path / "sparse")
    model = onnx.load(dense / "model.onnx")
    (head,) = (weight for weight in model.graph.initializer if weight.name == "head")
    pruned = numpy_helper.to_array(head).copy()
    pruned[np.random.default_rng(0).random(pruned.shape) < 0.7] = 0
    head.CopyFrom(numpy_helper.from_array(pruned, "head"))
    onnx.save(model, dense / "model.onnx")
    stored = encode(np.ascontiguousarray(pruned.T), (1, 1))
    arrays = make_arrays(stored, np.zeros(pruned.shape[1], np.float32))
    (old,) = (node for node in model.graph.node if "logits" in node.output)
    new = helper.make_node(
        "SparseLinear", [old.input[0], *arrays], ["logits"], domain="ai.stepdown", **make_attributes(stored)
    )
    model.graph.node.remove(old)
    model.graph.node.append(new)
    model.graph.initializer.remove(next(weight for weight in model.graph.initializer if weight.name == "head"))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    model.opset_import.append(helper.make_opsetid("ai.stepdown", 1))
    onnx.save(model, sparse / "model.onnx")
    return sparse, dense


def test_a_sparse_decoder_gives_the_tokens_of_the_dense_one(sparse):
    folder, dense = sparse
    with open_generator(folder, threads=1) as generator:
        assert generator.layout.is_sparse
        rows = [generator.encode(prompt) for prompt in ("Hello", "a", "the quick brown fox")]
        answers = generator.complete_ids(rows, GenerationOptions(max_new_tokens=16))
    assert answers == [reference(dense, row, 16) for row in rows]


def test_kernels_without_a_name_are_told(sparse, monkeypatch):
    folder, _ = sparse

    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    library = find_library()
    monkeypatch.setattr("runtimes.sparse.library.library_path", lambda: library)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(MissingDependency, match="not found by name"):
        open_generator(folder)


def test_without_kernels_the_cure_is_theirs(sparse, monkeypatch, tmp_path):
    folder, _ = sparse
    monkeypatch.setattr("runtimes.sparse.library.__file__", str(tmp_path / "library.py"))
    with pytest.raises(MissingDependency, match="were not built"):
        open_generator(folder)


@pytest.fixture
def archive(sparse, tmp_path):
    """The sparse decoder in a bundle, with this installation's kernels."""
    exported = write_artifact(tmp_path / "packed" / "exported")
    shutil.copyfile(sparse[0] / "model.onnx", exported / "onnxruntime" / "model.onnx")
    seal(exported, sparse_kernels=asdict(describe_build()))
    return pack_decoder(tmp_path / "packed")[0]


def test_a_sparse_decoder_writes_from_its_bundle_by_kernels_that_are_known(sparse, archive):
    with open_generator(archive, threads=1) as generator:
        row = generator.encode("Hello")
        assert generator.complete_ids([row], SHORT) == [reference(sparse[1], row, 16)]
        assert f"{generator.layout.directory}/{KERNELS}" not in list_mapped()


def test_kernels_of_somebody_else_run_where_that_is_allowed(sparse, archive, tmp_path):
    (old,) = read_archive(archive)[0].variants
    other = find_library().read_bytes() + b"\0"
    artifact = {**old.artifact, "sparse_kernels": {"version": describe_build().version, "sha256": hash_bytes(other)}}
    bundle = change(archive, tmp_path / "b.stepdown.tar.gz", own={KERNELS: other}, variant={"artifact": artifact})
    with pytest.raises(CorruptArtifact, match="nobody vouches"):
        open_generator(bundle)
    assert "stored answers not run" in verify_bundle(bundle).variants[0].probe
    with open_generator(bundle, threads=1, allow_host_code=True) as generator:
        row = generator.encode("Hello")
        assert generator.complete_ids([row], SHORT) == [reference(sparse[1], row, 16)]
        assert f"{generator.layout.directory}/{KERNELS}" in list_mapped()
    assert verify_bundle(bundle, VerifyOptions(allow_host_code=True)).verdict == "pass"


def list_mapped():
    return Path("/proc/self/maps").read_text(encoding="utf-8")
