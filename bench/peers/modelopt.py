"""NVIDIA ModelOpt's ONNX quantiser, with its default choices, in an environment of its own.

In: a float ONNX model and samples to calibrate with. Out: an ONNX file with Q/DQ for TensorRT.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured

Method = Literal["max", "entropy"]

# Its extra "onnx" asks for onnxruntime-gpu; the rest of that extra is named here, at the versions the extra pins.
REQUIREMENTS = (
    "nvidia-modelopt==0.47.0",
    "onnx==1.21.0",
    "onnxruntime==1.24.2",
    "onnxslim",
    "onnx-graphsurgeon",
    "onnxconverter-common",
    "onnxscript",
    "polygraphy",
    "lief",
    "cppimport",
    "torch==2.13.0",
)

# Everything at its default but the provider, which is to be there, and the shape of a sample, which it takes as 1.
_QUANTISE = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize

model, samples, method, out = sys.argv[1:]
with np.load(samples) as given:
    data = {name: given[name] for name in given.files}
quantize(
    model,
    quantize_mode="int8",
    calibration_data=data,
    calibration_method=method,
    calibration_shapes=",".join(f"{name}:1x{array.shape[1]}" for name, array in data.items()),
    calibration_eps=["cpu"],
    output_path=out,
)
"""


def open_modelopt(cache: Path) -> Path:
    """Return the Python that has ModelOpt. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-modelopt", REQUIREMENTS)


def quantize(python: Path, model: Path, out: Path, samples: Mapping[str, NDArray[np.int64]], *, method: Method) -> None:
    """Quantise ``model`` into ``out``.

    Args:
        python: Of an environment with ModelOpt.
        model: The float model.
        out: Where the result goes, one file.
        samples: By input, [samples, sequence]: it calibrates with one sample after the other.
        method: How ranges are found.

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".modelopt.") as scratch:
        given, made = Path(scratch) / "samples.npz", Path(scratch) / out.name
        np.savez(given, allow_pickle=False, **samples)
        # It leaves files beside its output.
        run_measured([str(python), "-c", _QUANTISE, str(model), str(given), method, str(made)])
        made.rename(out)
