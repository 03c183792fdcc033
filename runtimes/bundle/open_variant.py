"""Opens one variant of an unpacked bundle on the runtime that it is for.

In: an unpacked bundle whose files were checked. Out: an open session. What a bundle brings of code, its sparse kernels,
is taken from a listed and hashed file or not at all. Must not import onnx or torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import Artifact
from runtimes.bundle.description import Variant
from runtimes.bundle.home import Home
from runtimes.bundle.kernels import find_kernels
from runtimes.errors import CorruptArtifact
from runtimes.kernel_check import check_kernels
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.ort_providers import CPU
from runtimes.protocol import Session
from runtimes.trt.open_plan import open_plan as open_plan_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a bundle is run.

    Attributes:
        threads: Threads to run with on a CPU; None uses every core.
        allow_host_code: Whether a version-compatible plan may bring code of who built it.
        cache: Where plans that are built here are kept; None takes the user's cache (see :mod:`runtimes.bundle.cache`).
    """

    threads: int | None = None
    allow_host_code: bool = False
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedVariant:
    """An open session and what is worth knowing of it, one sentence each."""

    session: Session
    notes: tuple[str, ...] = ()


@contextmanager
def closed_on_error(session: Session) -> Iterator[None]:
    """Close a session where the block fails: what it holds of a GPU would stay taken for what is tried next."""
    try:
        yield
    except BaseException:
        session.close()
        raise


def open_onnx(home: Home, variant: Variant, options: ServeOptions) -> OpenedVariant:
    """Open a variant for ONNX Runtime, on the provider that it was measured on and no other.

    Raises:
        CorruptArtifact: the file is damaged, or sparse kernels are meant that are not these.
        MissingDependency: ONNX Runtime or its provider is not there, or sparse kernels are asked for and are not.
        UnsupportedModel: ONNX Runtime lacks an operator of it.
    """
    brought = find_kernels(variant)
    kernels = home.locate(variant) / brought if brought is not None else None
    where = f"bundle.json:{variant.name}.artifact"
    notes = () if kernels is not None else check_kernels({"requires": {}, **variant.artifact}, where)
    provider = variant.artifact.get("provider", CPU)
    if not isinstance(provider, str):
        raise CorruptArtifact(f"{provider!r} is no provider", where=f"{where}.provider", cure="pack it again")
    runtime = OnnxRuntime(OrtOptions(threads=options.threads, providers=(provider,), sparse_kernels=kernels))
    return OpenedVariant(session=runtime.open(_describe(home, variant)), notes=notes)


def open_plan(home: Home, variant: Variant, options: ServeOptions) -> OpenedVariant:
    """Open the plan that a variant brings.

    Raises:
        CorruptArtifact: it is damaged, of another version, package or GPU, or there is none.
        MissingDependency: the package that built it, or a GPU, is not there.
        UnsupportedModel: an expected layer was not picked, or the GPU has no memory for it.
        UsageError: it brings code that is not allowed.
    """
    plan = home.locate(variant) / variant.model
    if plan.suffix != ".plan":
        raise CorruptArtifact("the bundle brings no plan", where=variant.name, cure="build one from its graph")
    return OpenedVariant(session=open_plan_file(plan, allow_host_code=options.allow_host_code))


def _describe(home: Home, variant: Variant) -> Artifact:
    """Describe a model by what the bundle says of it: its files were checked, and are not read again."""
    folder = home.locate(variant)
    path = folder / variant.model
    return Artifact(
        path=path, kind="onnx", sha256=variant.files[variant.model], inputs=variant.inputs, outputs=variant.outputs
    )
