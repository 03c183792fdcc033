"""ModelOpt is called with the samples as they are, and only the file it was asked for is kept."""

import sys

import numpy as np
import pytest

from bench.peers import modelopt
from runtimes.errors import UnsupportedModel

# A package of its name that writes down what it was asked for, and leaves a file behind as the real one does.
_STAND_IN = """
from pathlib import Path

def quantize(model, **asked):
    if asked["calibration_method"] == "entropy":
        raise ValueError("no histogram")
    data = asked.pop("calibration_data")
    out = Path(asked.pop("output_path"))
    out.write_text(f"{model} {sorted(data)} {sorted(asked.items())}")
    out.with_suffix(".log").write_text("left behind")
"""


@pytest.fixture
def python(tmp_path):
    """This Python, with the stand-in first on its path."""
    package = tmp_path / "site" / "modelopt" / "onnx"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "quantization.py").write_text(_STAND_IN)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / "site"}" exec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


SAMPLES = {"input_ids": np.ones((3, 16), np.int64), "attention_mask": np.ones((3, 16), np.int64)}


def test_every_sample_is_taken_at_its_length(python, tmp_path):
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    modelopt.quantize(python, tmp_path / "float.onnx", out, SAMPLES, method="max")
    asked = out.read_text()
    assert "['attention_mask', 'input_ids']" in asked
    assert "('calibration_shapes', 'input_ids:1x16,attention_mask:1x16')" in asked
    assert "('calibration_eps', ['cpu'])" in asked
    assert [path.name for path in out.parent.iterdir()] == ["m.onnx"]


def test_its_failure_is_told_without_the_program(python, tmp_path):
    with pytest.raises(UnsupportedModel, match="no histogram") as caught:
        modelopt.quantize(python, tmp_path / "float.onnx", tmp_path / "m.onnx", SAMPLES, method="entropy")
    assert "import numpy" not in caught.value.where
    assert not (tmp_path / "m.onnx").exists()
