"""Opens a subject in the process that will run it: the one place where bench chooses a runtime.

In: a :class:`~bench.subjects.subject.SubjectSpec`. Out: an open session, what loading it took, and the clock to time it
by.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.processes.memory import read_resident_bytes
from bench.subjects.subject import SubjectSpec
from bench.timing.measure import Clock
from runtimes.artifact import Artifact
from runtimes.errors import MissingDependency, UsageError
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.ort_providers import choose_providers
from runtimes.protocol import Runtime, Session
from runtimes.torch_rt import CudaClock, TorchOptions, TorchRuntime
from runtimes.torch_sparse import SparseForm
from runtimes.trt.options import RunOptions, TrtOptions
from runtimes.trt.runtime import TensorRt

_SPARSE_FORMS: Mapping[str, SparseForm] = {
    "torch-csr": "csr",
    "torch-semi-structured": "semi-structured",
    "torch-semi-structured-int8": "semi-structured-int8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    """A session that can run; ``load_ns`` and ``load_memory_bytes`` are what it took from the file to that."""

    session: Session
    load_ns: int
    load_memory_bytes: int


def open_session(spec: SubjectSpec) -> OpenedSession:
    """Open a subject; the runtime is imported before time and memory count, a GPU is started within them.

    Raises:
        MissingDependency: the runtime or the device is not there.
        CorruptArtifact, UnsupportedModel: the model cannot be loaded.
        UsageError: the affinity names a processor that this machine has not.
    """
    _bind(spec.affinity)
    runtime = choose_runtime(spec)
    reason = runtime.why_unavailable()
    if reason is not None:
        raise MissingDependency(reason, where=spec.label)
    # The runtimes read the path alone, and hashing would be in the figure.
    artifact = Artifact(path=spec.model, kind=spec.kind, sha256="", inputs=(), outputs=())
    before_bytes, start_ns = read_resident_bytes(), time.perf_counter_ns()
    session = runtime.open(artifact)
    return OpenedSession(
        session=session,
        load_ns=time.perf_counter_ns() - start_ns,
        load_memory_bytes=max(0, read_resident_bytes() - before_bytes),
    )


def choose_clock(spec: SubjectSpec) -> Clock:
    """Return the clock of a subject: the host's, or that of the GPU where PyTorch runs there.

    ONNX Runtime and TensorRT sessions wait for the device at the end of each run; PyTorch does not, and its clock does.
    """
    if spec.runtime.startswith("torch") and spec.device == "cuda":
        return Clock(now_ns=CudaClock().now_ns)
    return Clock()


def choose_runtime(spec: SubjectSpec) -> Runtime:
    """Return the runtime that a subject asks for, with its options."""
    # Left to itself, ONNX Runtime takes a thread for every core of the machine and binds each to its own, outside of
    # the affinity too; told how many, it binds none.
    threads = spec.threads or len(spec.affinity) or None
    if spec.runtime == "onnxruntime":
        providers = choose_providers(spec.device)
        return OnnxRuntime(OrtOptions(threads=threads, providers=providers, device_inputs=spec.device_inputs))
    if spec.runtime == "tensorrt":
        run = RunOptions(device_inputs=spec.device_inputs, allow_host_code=spec.allow_host_code)
        return TensorRt(TrtOptions(run=run))
    return TorchRuntime(
        TorchOptions(
            threads=threads,
            device="cuda" if spec.device == "cuda" else "cpu",
            compiled=spec.runtime == "torch-compile",
            sparse=_SPARSE_FORMS.get(spec.runtime),
            device_inputs=spec.device_inputs,
        )
    )


def _bind(processors: tuple[int, ...]) -> None:
    """Bind this process to the processors; before any runtime starts its threads, which inherit it."""
    if not processors:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("this system cannot bind a process to processors", where="--affinity", cure="leave it out")
    try:
        os.sched_setaffinity(0, processors)
    except (OSError, ValueError) as error:
        here = sorted(os.sched_getaffinity(0))
        raise UsageError(
            f"this machine has no processors {list(processors)}", where="--affinity", cure=f"use some of {here}"
        ) from error
