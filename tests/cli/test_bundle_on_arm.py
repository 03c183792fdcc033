"""A bundle for ARM that was made here is verified and runs there: its models, its kernels, and the numpy side of it."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from runtimes.sparse.library import describe_build
from runtimes.sparse.reference import sparse_linear
from tests.aarch64 import build_kernels, find_aarch64, run_stepdown
from tests.cli.pack.test_pack_sparse import IN, make_bias, make_stored
from tests.unit.exporter.packing.tiny_export import change_entry, change_manifest, write_export
from tests.unit.runtimes.sparse.single_node import find_library, make_arrays, make_attributes, make_model

DEVICE = "arm64-neon-dotprod"

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(tmp_path):
    find_aarch64()
    return tmp_path / "films.stepdown.tar.gz"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return build_kernels(tmp_path_factory.mktemp("arm64"))


def test_a_bundle_is_verified_installed_and_answers(stepdown, bundle, tmp_path):
    export = write_export(tmp_path / "films")
    assert stepdown("pack", export, "-o", bundle, "--device", "x86-64-avx2", "--device", DEVICE).code == 0
    verified = run_stepdown("verify", bundle, "--json", cache=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    installed = run_stepdown("install", bundle, "--root", tmp_path / "root", cache=tmp_path)
    assert installed.returncode == 0, installed.stderr
    ran = run_stepdown("run", tmp_path / "root" / "films", "--text", "good film", "--json", cache=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["answers"][0]["value"]["label"] == "positive"


def test_a_bundle_for_another_cpu_is_refused(stepdown, bundle, tmp_path):
    assert stepdown("pack", write_export(tmp_path / "films"), "-o", bundle, "--device", "x86-64-avx2").code == 0
    verified = run_stepdown("verify", bundle, cache=tmp_path)
    assert verified.returncode == 8
    assert "x86_64" in verified.stdout + verified.stderr


def test_the_kernels_of_a_bundle_run_there(stepdown, bundle, kernels, tmp_path):
    find_library()
    export, stored = write_export(tmp_path / "films"), make_stored()
    model = make_model(make_arrays(stored, make_bias()), make_attributes(stored), ("batch", "length", IN))
    (export / "onnxruntime" / "model.onnx").write_bytes(model)
    change_entry(export, sparse_kernels=asdict(describe_build()))
    change_manifest(export, source={"task": None})
    result = stepdown("pack", export, "-o", bundle, "--device", DEVICE, "--kernels", kernels)
    assert result.code == 0, result.err
    verified = run_stepdown("verify", bundle, "--allow-host-code", cache=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "stored answers not run" not in verified.stdout
    x = np.random.default_rng(9).standard_normal((2, 3, IN)).astype(np.float32)
    np.savez(tmp_path / "feeds.npz", x=x)
    asked = ["run", bundle, "--inputs", tmp_path / "feeds.npz", "--json"]
    assert run_stepdown(*asked, cache=tmp_path).returncode == 8
    ran = run_stepdown(*asked, "--allow-host-code", cache=tmp_path)
    assert ran.returncode == 0, ran.stderr
    answer = np.array(json.loads(ran.stdout)["answers"][0]["value"]["y"], np.float32)
    np.testing.assert_allclose(answer, sparse_linear(x, stored, make_bias(), "none"), rtol=1e-5, atol=1e-5)
