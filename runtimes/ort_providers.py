"""Which of ONNX Runtime's execution providers there are, work here, and do the work.

In: names of providers or devices, a session. Out: providers, or an error where one is missing or idle. ``onnxruntime``
is imported inside the functions that need it. Must not import onnx, torch, or other runtimes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from runtimes.errors import MissingDependency, UnsupportedModel
from runtimes.ort_errors import import_onnxruntime, ort_errors

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"

# One MatMul of x[1,4] with a constant identity (opset 13, IR 7), written by onnx.helper: the unit tests rebuild it.
# A MatMul, because every provider that accelerates anything takes it; constant, because XNNPACK wants that.
PROBE_MODEL = bytes.fromhex(
    "080712003a91010a110a01780a017712017922064d61744d756c120570726f62652a4b0804080410014201774a400000803f00000000"
    "0000000000000000000000000000803f000000000000000000000000000000000000803f000000000000000000000000000000000000"
    "803f5a130a0178120e0a0c080112080a0208010a02080462130a0179120e0a0c080112080a0208010a02080442040a00100d"
)


def name_device(provider: str) -> str:
    """``CUDAExecutionProvider`` -> ``cuda``: the short name by which a user chooses it."""
    return provider.removesuffix("ExecutionProvider").lower()


def choose_providers(device: str) -> tuple[str, ...]:
    """Return the execution providers for a device by its short name (``cpu``, ``cuda``, ``tensorrt``, ``openvino``).

    TensorRT comes with CUDA behind it, which takes what TensorRT leaves.

    Raises:
        MissingDependency: onnxruntime is not installed, or was not built with that provider.
    """
    providers = import_onnxruntime().get_available_providers()
    chosen = next((provider for provider in providers if name_device(provider) == device), None)
    if chosen is None:
        raise MissingDependency(
            f"this onnxruntime has no execution provider '{device}'; it has {', '.join(map(name_device, providers))}",
            where="onnxruntime",
            cure="install the onnxruntime package that has it (onnxruntime-gpu for cuda), or choose another device",
        )
    return (chosen, _CUDA) if chosen == "TensorrtExecutionProvider" and _CUDA in providers else (chosen,)


@cache
def available_providers() -> tuple[str, ...]:
    """Execution providers that run a small model here, in ONNX Runtime's order of preference.

    onnxruntime lists what it was built with; a GPU provider without its driver, or one that only calls a web
    service, is not there.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """
    ort = import_onnxruntime()
    return tuple(name for name in ort.get_available_providers() if _runs_probe(ort, name))


def require_providers(wanted: Sequence[str], present: Sequence[str], problem: str) -> None:
    """Raise MissingDependency for the first that is wanted and not present."""
    for provider in wanted:
        if provider not in present:
            raise MissingDependency(
                f"{provider} {problem}; it has {', '.join(present)}",
                where="onnxruntime",
                cure=f"install the onnxruntime package that has it, or choose {CPU}",
            )


def require_work(first: str, session: onnxruntime.InferenceSession, model: Path) -> None:
    """Raise UnsupportedModel where the first provider is idle: what stands behind it would do all the work."""
    if first == CPU:
        return
    working = sorted({part.ep_name for part in session.get_provider_graph_assignment_info()})
    if working and first not in working:
        raise UnsupportedModel(
            f"{first} takes no node of the model; {', '.join(working)} would run it",
            where=str(model),
            cure=f"choose {name_device(working[0])}, or another form of the model",
        )


def _runs_probe(ort: ModuleType, provider: str) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(PROBE_MODEL, options, providers=[provider], enable_fallback=0)
        session.run(None, {"x": np.ones((1, 4), np.float32)})
    except ort_errors():
        return False
    return provider in session.get_providers()
