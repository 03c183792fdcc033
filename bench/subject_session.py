"""Opens a subject in the process that will run it: the one place where bench chooses a runtime.

In: a :class:`~bench.subject.SubjectSpec`. Out: an open session and how long loading took.
"""

from __future__ import annotations

import os
import time

from bench.subject import SubjectSpec
from runtimes.artifact import Artifact
from runtimes.errors import UsageError
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.protocol import Runtime, Session
from runtimes.torch_rt import TorchOptions, TorchRuntime


def open_session(spec: SubjectSpec) -> tuple[Session, int]:
    """Open a subject; the runtime is imported before the clock starts.

    Returns:
        The session, and the nanoseconds from the file to a session that can run.

    Raises:
        MissingDependency: the runtime or the device is not there.
        CorruptArtifact, UnsupportedModel: the model cannot be loaded.
        UsageError: the affinity names a processor that this machine has not.
    """
    _bind(spec.affinity)
    runtime = _choose_runtime(spec)
    runtime.why_unavailable()
    # The runtimes read the path alone, and hashing would be in the figure.
    artifact = Artifact(path=spec.model, kind=spec.kind, sha256="", inputs=(), outputs=())
    start_ns = time.perf_counter_ns()
    session = runtime.open(artifact)
    return session, time.perf_counter_ns() - start_ns


def _choose_runtime(spec: SubjectSpec) -> Runtime:
    if spec.runtime == "onnxruntime":
        return OnnxRuntime(OrtOptions(threads=spec.threads))
    return TorchRuntime(TorchOptions(threads=spec.threads))


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
