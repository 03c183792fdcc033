"""Kernels of a bundle: named, hashed, needed and for the right CPU, or refused; none is loaded to find out."""

import pytest

from runtimes.bundle.contents import check_contents
from tests.unit.runtimes.bundle.real_bundle import describe, hash_bytes, make_custom
from tests.unit.runtimes.bundle.refusal import refuse


def put_library(variant, machine=62, head=b"\x7fELF\x02\x01\x01", kind=3):
    (variant / "kernels").mkdir()
    data = head.ljust(16, b"\0") + kind.to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(100)
    (variant / "kernels" / "libstepdown_sparse.so").write_bytes(data)
    return {"sparse_kernels": {"version": "0.1.0", "sha256": hash_bytes(data)}}


def x86(home):
    return {"requires": describe(home).variants[0].requires.__class__(
        arch="x86_64", isa=None, onnxruntime=">=1.24", memory_bytes=0, sm=None, tensorrt=None
    )}  # fmt: skip


def test_kernels_that_are_listed_and_named_pass(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    artifact = put_library(variant)
    check_contents(home, describe(home, artifact=artifact, **x86(home)))


def test_kernels_that_the_artifact_does_not_name_are_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    put_library(variant)
    refuse(home, "does not name", **x86(home))


def test_kernels_under_another_hash_are_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    artifact = put_library(variant)
    artifact["sparse_kernels"]["sha256"] = "0" * 64
    error = refuse(home, "not the one that the artifact names", artifact=artifact, **x86(home))
    assert error.expected == "0" * 64


@pytest.mark.parametrize(
    "named", [3, {}, {"version": "0.1.0"}, {"version": "0.1.0", "sha256": "x"}, {"version": "x", "sha256": "0" * 64}]
)
def test_kernels_that_are_named_badly_are_refused(home, variant, named):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    put_library(variant)
    refuse(home, "here: ", artifact={"sparse_kernels": named}, **x86(home))


def test_kernels_without_use_are_refused(home, variant):
    refuse(home, "no use for", artifact=put_library(variant), **x86(home))


def test_a_second_library_is_refused(home, variant):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    artifact = put_library(variant)
    (variant / "kernels" / "more.so").write_bytes(b"x")
    refuse(home, "one shared library", artifact=artifact, **x86(home))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine": 183}, "expected x86_64, found aarch64"),
        ({"machine": 3}, "machine 3"),
        ({"head": b"MZ"}, "not a shared library"),
        ({"head": b"\x7fELF\x01\x01"}, "64-bit"),
        ({"head": b"\x7fELF\x02\x02"}, "64-bit"),
        ({"kind": 2}, "64-bit"),
    ],
)
def test_libraries_for_other_machines_are_refused(home, variant, changes, message):
    (variant / "model.onnx").write_bytes(make_custom("ai.stepdown"))
    refuse(home, message, artifact=put_library(variant, **changes), **x86(home))


def test_a_library_elsewhere_is_refused(home, variant):
    put_library(variant)
    (variant / "kernels" / "libstepdown_sparse.so").rename(variant / "lib.so")
    refuse(home, "no files of this kind")
