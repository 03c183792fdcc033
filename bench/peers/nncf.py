"""NNCF's post-training quantiser for ONNX, with its default choices, in an environment of its own.

In: a float ONNX model and samples to calibrate with. Out: an ONNX file with Q/DQ, made for OpenVINO.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured

REQUIREMENTS = ("nncf==3.4.0", "onnx==1.21.0", "onnxruntime==1.24.2")

_QUANTISE = """
import sys
import nncf
import numpy as np
import onnx

model, samples, out = sys.argv[1:]
with np.load(samples) as given:
    data = {name: given[name] for name in given.files}
rows = [{name: array[number : number + 1] for name, array in data.items()} for number in range(len(data["input_ids"]))]
made = nncf.quantize(onnx.load(model), nncf.Dataset(rows), subset_size=len(rows), model_type=nncf.ModelType.TRANSFORMER)
onnx.save(made, out)
"""


def open_nncf(cache: Path) -> Path:
    """Return the Python that has NNCF. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-nncf", REQUIREMENTS)


def quantise(python: Path, model: Path, out: Path, samples: Mapping[str, NDArray[np.int64]]) -> None:
    """Quantise ``model`` into ``out``, as a Transformer.

    Args:
        python: Of an environment with NNCF.
        model: The float model.
        out: Where the result goes, one file.
        samples: By input, ``input_ids`` among them, [samples, sequence].

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".nncf.") as scratch:
        given, made = Path(scratch) / "samples.npz", Path(scratch) / out.name
        np.savez(given, allow_pickle=False, **samples)
        run_measured([str(python), "-c", _QUANTISE, str(model), str(given), str(made)])
        made.rename(out)
