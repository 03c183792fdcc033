"""A bundle of a model with sparse layers brings the kernels of the device's CPU, and no other."""

import platform
from dataclasses import asdict

import numpy as np
import pytest
from safetensors.numpy import load

from runtimes.artifact import hash_file
from runtimes.bundle.archive import open_archive
from runtimes.isa import normalise_arch
from runtimes.sparse.library import KernelBuild, describe_build
from runtimes.sparse.reference import sparse_linear
from runtimes.sparse.storage import encode
from tests.aarch64 import build_kernels
from tests.unit.exporter.packing.tiny_export import change_entry, change_manifest, write_export
from tests.unit.runtimes.sparse.single_node import find_library, make_arrays, make_attributes, make_model

OUT, IN = 33, 70
OWN, OTHER = {
    "x86_64": ("x86-64-avx2", "arm64-neon-dotprod"),
    "aarch64": ("arm64-neon", "x86-64-avx2"),
}[normalise_arch(platform.machine())]
KERNELS = "kernels/libstepdown_sparse.so"


def make_stored():
    random = np.random.default_rng(5)
    weight = random.integers(-128, 128, (OUT, IN)) * (random.random((OUT, IN)) < 0.2)
    return encode((weight / 64).astype(np.float32), (4, 1))


def make_bias():
    return np.random.default_rng(6).standard_normal(OUT).astype(np.float32)


@pytest.fixture
def export(tmp_path):
    find_library()
    folder, stored = write_export(tmp_path / "films"), make_stored()
    model = make_model(make_arrays(stored, make_bias()), make_attributes(stored), ("batch", "length", IN))
    (folder / "onnxruntime" / "model.onnx").write_bytes(model)
    change_entry(folder, sparse_kernels=asdict(describe_build()))
    change_manifest(folder, source={"task": None})
    return folder


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "films.stepdown.tar.gz"


def read_variant(bundle):
    with open_archive(bundle) as archive:
        (variant,) = archive.description.variants
        return variant, {sha256: b"".join(pieces) for sha256, pieces in archive.blobs()}


def test_the_kernels_go_in_and_the_probe_is_their_answer(stepdown, export, bundle):
    result = stepdown("pack", export, "-o", bundle, "--device", OWN)
    assert result.code == 0, result.err
    variant, blobs = read_variant(bundle)
    assert variant.artifact["sparse_kernels"] == asdict(describe_build())
    assert variant.files[KERNELS] == describe_build().sha256
    feeds, outputs = (load(blobs[variant.files[path]]) for path in (variant.probe.inputs, variant.probe.outputs))
    expected = sparse_linear(feeds["x"], make_stored(), make_bias(), "none")
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-5, atol=1e-5)


def test_code_that_nobody_vouches_for_is_not_run_unless_allowed(stepdown, export, bundle, tmp_path):
    """Kernels that are one byte longer than this installation's."""
    (tmp_path / "theirs.so").write_bytes(find_library().read_bytes() + b"x")
    packed = stepdown("pack", export, "-o", bundle, "--device", OWN, "--kernels", tmp_path / "theirs.so")
    assert packed.code == 0, packed.err
    np.savez(tmp_path / "feeds.npz", x=np.ones((2, 3, IN), np.float32))
    run = ["run", bundle, "--inputs", tmp_path / "feeds.npz"]
    install = ["install", bundle, "--root", tmp_path / "models"]
    verified = stepdown("verify", bundle)
    assert verified.code == 0
    assert "stored answers not run: it brings code of who packed it" in verified.out
    assert "to run them: --key PUB" in verified.out
    for refused in (stepdown(*install), stepdown(*run)):
        assert refused.code == 8
        assert "it brings code of who packed it" in refused.err
        assert "--allow-host-code" in refused.err
    assert not (tmp_path / "models").exists()
    assert "agrees" in stepdown("verify", bundle, "--allow-host-code").out
    assert stepdown(*install, "--allow-host-code").code == 0
    assert stepdown(*run, "--allow-host-code").code == 0


def test_the_kernels_of_this_installation_are_nobodys_code(stepdown, export, bundle, tmp_path):
    assert stepdown("pack", export, "-o", bundle, "--device", OWN).code == 0
    assert "agrees" in stepdown("verify", bundle).out
    assert stepdown("install", bundle, "--root", tmp_path / "models").code == 0


def test_another_build_than_that_it_was_timed_with_is_said(stepdown, export, bundle):
    timed = KernelBuild(version=describe_build().version, sha256="0" * 64)
    change_entry(export, sparse_kernels=asdict(timed))
    result = stepdown("pack", export, "-o", bundle, "--device", OWN)
    assert result.code == 0, result.err
    assert "another build" in result.err
    assert read_variant(bundle)[0].artifact["sparse_kernels"] == asdict(describe_build())


def test_without_kernels_for_the_device_nothing_is_written(stepdown, export, bundle):
    result = stepdown("pack", export, "-o", bundle, "--device", OTHER)
    assert result.code == 2
    assert "no kernels for" in result.err
    assert not bundle.exists()


@pytest.mark.slow
@pytest.mark.skipif(OWN.startswith("arm"), reason="the compiler for the other architecture is that for ARM")
def test_kernels_built_for_an_arm_device_are_packed_here(stepdown, export, bundle, tmp_path):
    library = build_kernels(tmp_path / "build")
    result = stepdown("pack", export, "-o", bundle, "--device", OTHER, "--kernels", library)
    assert result.code == 0, result.err
    variant, _ = read_variant(bundle)
    assert variant.requires.arch == "aarch64"
    assert variant.files[KERNELS] == hash_file(library) != describe_build().sha256
