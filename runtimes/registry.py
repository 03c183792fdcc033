"""Every runtime there is, by name. A plain dictionary: adding a runtime is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtimes.errors import UsageError
from runtimes.ort import OnnxRuntime
from runtimes.protocol import Runtime
from runtimes.torch_rt import TorchRuntime
from runtimes.trt.runtime import TensorRt

# The modules import their runtime when it is used, not when they are imported.
RUNTIMES: Mapping[str, Callable[[], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "torch": TorchRuntime,
    "tensorrt": TensorRt,
}


def get_runtime(name: str) -> Runtime:
    """Return the runtime called ``name`` with its default options.

    Raises:
        UsageError: there is no such runtime.
    """
    if name not in RUNTIMES:
        raise UsageError(f"unknown runtime '{name}'", cure=f"use one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]()
