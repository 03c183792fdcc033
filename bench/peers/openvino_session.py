"""OpenVINO as a session, so that it is timed and judged like every other subject.

In: an ONNX file. Out: a :class:`~runtimes.protocol.Session`. ``openvino`` is imported inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import TensorSpec
from runtimes.errors import MissingDependency, UsageError
from runtimes.protocol import Tensors

if TYPE_CHECKING:
    import openvino


class OpenVinoSession:
    """A model compiled for the CPU; one inference request, so not thread-safe."""

    thread_safe = False

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self.inputs = tuple(_describe_port(port) for port in compiled.inputs)
        self.outputs = tuple(_describe_port(port) for port in compiled.outputs)

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once. Inputs and outputs are shared with OpenVINO, its fastest way; outputs last until the next run."""
        results: Any = self.prepare(feeds)()
        return {spec.name: results[number] for number, spec in enumerate(self.outputs)}

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Return the bare call of OpenVINO on these feeds."""
        request, given = self._request, dict(feeds)
        if request is None:
            raise UsageError("the session is closed", cure="open the model again")
        return lambda: request.infer(given, share_inputs=True, share_outputs=True)

    def close(self) -> None:
        """Release the request."""
        self._request = None


def open_openvino(model: Path, *, threads: int, precision: str | None) -> OpenVinoSession:
    """Compile an ONNX file for latency.

    Args:
        model: The file.
        threads: Inference threads.
        precision: ``f32`` holds it to float32; None lets it choose, which is bfloat16 on CPUs with AMX or AVX512-BF16.

    Raises:
        MissingDependency: openvino is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingDependency("openvino is not installed", cure="pip install 'stepdown[dev]'") from error
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    return OpenVinoSession(openvino.Core().compile_model(str(model), "CPU", settings))


def _describe_port(port: openvino.ConstOutput) -> TensorSpec:
    return TensorSpec(
        name=port.get_any_name(),
        dtype=np.dtype(port.element_type.to_dtype()).name,
        shape=tuple(
            axis.get_length() if axis.is_static else f"{port.get_any_name()}.{number}"
            for number, axis in enumerate(port.partial_shape)
        ),
    )
