"""Opens a plan file on the GPU. In: a path. Out: a session. TensorRT's modules are imported when a plan is opened."""

from __future__ import annotations

from pathlib import Path

from runtimes.protocol import Session


def open_plan(plan: Path, *, allow_host_code: bool) -> Session:
    """Check a plan against its record and open it.

    Args:
        plan: The file; its record lies beside it.
        allow_host_code: Whether it may bring code of who built it, as version-compatible plans do.

    Raises:
        CorruptArtifact: it is damaged, or of another version, package or GPU.
        MissingDependency: the package that built it, or a GPU, is not there.
        UnsupportedModel: an expected layer was not picked, or the GPU has no memory for it.
        UsageError: it brings code that is not allowed.
    """
    from runtimes.trt.options import RunOptions, TrtOptions
    from runtimes.trt.record import describe_plan, verify_plan
    from runtimes.trt.runtime import TensorRt

    runtime = TensorRt(TrtOptions(run=RunOptions(allow_host_code=allow_host_code)))
    return runtime.open(describe_plan(plan, verify_plan(plan)))
