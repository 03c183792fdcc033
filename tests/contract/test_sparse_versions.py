"""The library speaks to every ONNX Runtime from 1.17 on: its table of functions is ours, not one from a header."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtimes.sparse.reference import Norm, sparse_linear, sparse_linear_int8
from runtimes.sparse.storage import encode
from tests.unit.runtimes.sparse.single_node import find_library, make_arrays, make_attributes, make_model

pytestmark = pytest.mark.slow

# The first with ParallelFor; one from between; the oldest we export for. The newest is what all other tests run on.
# Before 1.19 it was built for numpy 1.
VERSIONS = {"1.17.3": "numpy<2", "1.20.1": "numpy<3", "1.24.4": "numpy<3"}

PYTHONS = pytest.mark.skipif(sys.version_info >= (3, 12), reason="ONNX Runtime 1.16 has no wheel for this Python")

SCRIPT = """
import pathlib, sys
import numpy as np, onnxruntime

library, folder = sys.argv[1], pathlib.Path(sys.argv[2])
onnxruntime.set_default_logger_severity(4)

def open_model(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

for name in ("float", "int8", "normed"):
    session = open_model(folder / f"{name}.onnx")
    assert session.get_outputs()[0].shape == ["batch", "length", 33], session.get_outputs()[0].shape
    for case in ("one", "many", "none"):
        x, expected = (np.load(folder / f"{name}.{case}.{part}.npy") for part in ("x", "y"))
        for _ in range(20):
            feeds = {"x": x}
            if name == "normed":
                feeds["residual"] = np.load(folder / f"normed.{case}.residual.npy")
            np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=1e-5, atol=1e-5)
    try:
        residual = {"residual": np.zeros((1, 2, 33), np.float32)} if name == "normed" else {}
        session.run(None, {"x": np.zeros((1, 2, 71), np.float32)} | residual)
    except Exception as error:
        assert "71" in str(error), error
    else:
        raise AssertionError("an X that does not fit was taken")
    del session
try:
    open_model(folder / "hostile.onnx")
except Exception as error:
    assert "gaps leads to column" in str(error), error
else:
    raise AssertionError("a hostile model was taken")
print(onnxruntime.__version__)
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    """Models with inputs and what the reference answers."""
    folder = tmp_path_factory.mktemp("cases")
    random = np.random.default_rng(3)
    weight = (random.integers(-128, 128, (33, 70)) * (random.random((33, 70)) < 0.2)).astype(np.int8)
    bias, scales = random.standard_normal(33).astype(np.float32), random.random(33).astype(np.float32)
    floats, integers = encode(weight.astype(np.float32) / 64, (4, 1)), encode(weight, (1, 4))
    axes = ("batch", "length", None)
    arrays, attributes = make_arrays(floats, bias), make_attributes(floats, "gelu")
    (folder / "float.onnx").write_bytes(make_model(arrays, attributes, axes))
    hostile = arrays | {"gaps": np.full_like(arrays["gaps"], 255)}
    (folder / "hostile.onnx").write_bytes(make_model(hostile, attributes, axes))
    arrays, attributes = make_arrays(integers, bias, scales), make_attributes(integers, "relu")
    (folder / "int8.onnx").write_bytes(make_model(arrays, attributes, axes))
    arrays |= {"residual": np.zeros((1, 1, 33), np.float32), "norm_scale": scales, "norm_bias": bias}
    normed = make_model(arrays, attributes | {"epsilon": 1e-5}, axes, computed="residual")
    (folder / "normed.onnx").write_bytes(normed)
    for case, shape in {"one": (1, 1, 70), "many": (3, 97, 70), "none": (2, 0, 70)}.items():
        x = random.standard_normal(shape).astype(np.float32)
        residual = random.standard_normal((*shape[:2], 33)).astype(np.float32)
        np.save(folder / f"normed.{case}.residual.npy", residual)
        norm = Norm(residual=residual, scale=scales, bias=bias, epsilon=1e-5)
        answers = {
            "float": sparse_linear(x, floats, bias, "gelu"),
            "int8": sparse_linear_int8(x, integers, scales, bias, "relu"),
            "normed": sparse_linear_int8(x, integers, scales, bias, "relu", norm),
        }
        for name, answer in answers.items():
            np.save(folder / f"{name}.{case}.x.npy", x)
            np.save(folder / f"{name}.{case}.y.npy", answer)
    return folder


def run_with(python: str, cases: Path) -> str:
    command = [python, "-c", SCRIPT, str(find_library()), str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_environment(version: str, numpy: str, folder: Path) -> str:
    """Return the Python of an environment with one onnxruntime; skip where it cannot be had.

    ``REQUIRE_ASSETS=1`` makes the skip a failure.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*install, f"onnxruntime=={version}", numpy], capture_output=True, text=True, check=False)
    if done.returncode != 0 and not os.environ.get("REQUIRE_ASSETS"):
        pytest.skip(f"onnxruntime {version} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@PYTHONS
@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_runtime_loads_the_library_and_answers_the_same(version, cases, tmp_path):
    assert run_with(make_environment(version, VERSIONS[version], tmp_path / "venv"), cases) == version


@PYTHONS
def test_a_runtime_that_is_too_old_is_refused_with_a_message(tmp_path):
    python = make_environment("1.16.3", "numpy<2", tmp_path / "venv")
    code = "import sys, onnxruntime; onnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])"
    done = subprocess.run([python, "-c", code, str(find_library())], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sparse kernels need ONNX Runtime 1.17 or later" in done.stderr


def test_the_runtime_that_is_installed_answers_the_same(cases):
    import onnxruntime

    assert run_with(sys.executable, cases) == onnxruntime.__version__
