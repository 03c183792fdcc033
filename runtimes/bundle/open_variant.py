"""Opens one variant of an unpacked bundle on the runtime that it is for.

In: an unpacked bundle whose files were checked. Out: an open session. What a bundle brings of code, its sparse kernels,
is run where it is this installation's own, or where somebody who is trusted vouches for it. Must not import onnx or
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import Artifact, hash_file
from runtimes.bundle.description import Variant
from runtimes.bundle.home import Home
from runtimes.bundle.kernels import find_kernels
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.kernel_check import check_kernels
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.ort_providers import CPU
from runtimes.protocol import Session
from runtimes.sparse.library import library_path
from runtimes.trt.open_plan import open_plan as open_plan_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a bundle is run.

    Attributes:
        threads: Threads to run with on a CPU; None uses every core.
        allow_host_code: Whether it may bring code of who built it: a runtime in a version-compatible plan, kernels.
        allow_kernels: Whether it may bring kernels; where a trusted key signed the bundle, that is so anyway.
        cache: Where plans that are built here are kept; None takes the user's cache (see :mod:`runtimes.bundle.cache`).
    """

    threads: int | None = None
    allow_host_code: bool = False
    allow_kernels: bool = False
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
        CorruptArtifact: the file is damaged, it brings code that is not allowed, or other sparse kernels are meant.
        MissingDependency: ONNX Runtime or its provider is not there, or sparse kernels are asked for and are not.
        UnsupportedModel: ONNX Runtime lacks an operator of it.
    """
    refused = refuse_code(variant, options)
    if refused is not None:
        raise refused
    kernels = choose_kernels(home, variant)
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
    if not variant.brings_plan:
        raise CorruptArtifact("the bundle brings no plan", where=variant.name, cure="build one from its graph")
    return OpenedVariant(session=open_plan_file(plan, allow_host_code=options.allow_host_code))


def refuse_code(variant: Variant, options: ServeOptions) -> CorruptArtifact | None:
    """Return why a variant for ONNX Runtime is not opened: it would run code that nobody vouches for.

    Raises:
        CorruptArtifact: what it says of its kernels does not hold together.
    """
    brought = find_kernels(variant)
    if brought is None or options.allow_host_code or options.allow_kernels or _is_ours(variant.files[brought]):
        return None
    return CorruptArtifact(
        "it brings code of who packed it, and nobody vouches for that",
        where=f"{variant.name}: {brought}",
        cure="--key PUB of who signed it; or, if you trust it as it is, --allow-host-code "
        "(in Python: ServeOptions.allow_host_code)",
    )


def choose_kernels(home: Home, variant: Variant) -> Path | None:
    """Return the library that a variant brings; where this installation has the same, that."""
    brought = find_kernels(variant)
    if brought is None:
        return None
    return library_path() if _is_ours(variant.files[brought]) else home.locate(variant) / brought


def _is_ours(sha256: str) -> bool:
    try:
        return hash_file(library_path()) == sha256
    except MissingDependency:  # none was built here, so it is another's
        return False


def _describe(home: Home, variant: Variant) -> Artifact:
    """Describe a model by what the bundle says of it: its files were checked, and are not read again."""
    folder = home.locate(variant)
    path = folder / variant.model
    return Artifact(
        path=path, kind="onnx", sha256=variant.files[variant.model], inputs=variant.inputs, outputs=variant.outputs
    )
