"""What is measured, as plain data that a worker process can be told. Must not import a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RuntimeName = Literal[
    "onnxruntime",
    "torch",
    "torch-compile",
    "torch-csr",
    "torch-semi-structured",
    "torch-semi-structured-int8",
    "tensorrt",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectSpec:
    """A model, what runs it, and how.

    Attributes:
        label: Its name in tables and files.
        runtime: ``onnxruntime``, ``tensorrt``, or PyTorch: ``torch`` (eager), ``torch-compile``, or eager with its
            pruned linears in a sparse form (``torch-csr``, ``torch-semi-structured``, ``torch-semi-structured-int8``).
        device: ``cpu`` or ``cuda``; for ONNX Runtime any execution provider by its short name (``tensorrt``).
        model: An ``.onnx`` file, a ``.pt2`` program, a ``.plan`` of TensorRT, or a checkpoint folder.
        kind: Which of the four: ``onnx``, ``pt2``, ``plan``, ``huggingface``.
        threads: Threads within an operator; None takes one for each processor of the affinity, or leaves it to the
            runtime.
        affinity: The only logical processors it may use; empty leaves all.
        device_inputs: On a GPU: inputs and outputs stay on the device, so that no copy is in the figure.
        allow_host_code: Whether a plan may bring code of who built it.
    """

    label: str
    runtime: RuntimeName
    device: str
    model: Path
    kind: Literal["onnx", "pt2", "plan", "huggingface"]
    threads: int | None = None
    affinity: tuple[int, ...] = ()
    device_inputs: bool = False
    allow_host_code: bool = False
