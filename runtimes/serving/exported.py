"""Opens what `stepdown export` wrote: the directory is verified, and what does not fit this machine is refused.

In: a directory and its manifest. Out: an open session, or the model file and how it runs here. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.artifact import MANIFEST_NAME, Manifest, hash_file
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.isa import detect, may_run_on
from runtimes.kernel_check import check_kernels
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.protocol import Session
from runtimes.trt.open_plan import open_plan
from runtimes.versions import count_version


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """The model file of an exported directory, options with the provider it was measured on, and notes on it."""

    path: Path
    options: OrtOptions
    notes: tuple[str, ...] = ()


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Check every file that the manifest names.

    Raises:
        CorruptArtifact: one is missing, has another size or another sha256, or lies outside the directory.
    """
    for record in manifest.files:
        path = directory / record.path
        cure = "export it again, or fetch the whole directory again"
        if not path.resolve().is_relative_to(directory.resolve()):
            raise CorruptArtifact("the manifest names a file outside its directory", where=record.path, cure=cure)
        if not path.is_file():
            raise CorruptArtifact("a file of the manifest is missing", where=str(path), cure=cure)
        if path.stat().st_size != record.bytes or hash_file(path) != record.sha256:
            raise CorruptArtifact("the file is not the one that was exported", where=str(path), cure=cure)


def open_exported(
    directory: Path, manifest: Manifest, threads: int | None, *, allow_host_code: bool = False
) -> tuple[Session, tuple[str, ...]]:
    """Open what ships: the ONNX Runtime model where there is one, else the TensorRT plan; never one for the other."""
    if "onnxruntime" in manifest.artifacts or "tensorrt" not in manifest.artifacts:
        chosen = choose_artifact(directory, manifest, threads)
        return OnnxRuntime(chosen.options).open(describe_onnx(chosen.path)), chosen.notes
    entry = manifest.artifacts["tensorrt"]
    if "provider" in entry:
        options = OrtOptions(threads=threads, providers=(entry["provider"],))
        return OnnxRuntime(options).open(describe_onnx(directory / entry["path"])), ()
    return open_plan(choose_plan(directory, manifest), allow_host_code=allow_host_code), ()


def choose_artifact(directory: Path, manifest: Manifest, threads: int | None) -> ChosenModel:
    """Return the model file of an exported directory, and how it runs here.

    Raises:
        CorruptArtifact: the manifest names none or contradicts itself, the model's answers would differ on this CPU, or
            it was made with sparse kernels that these do not stand for.
        MissingDependency: it needs a later ONNX Runtime, or sparse kernels and there are none.
    """
    try:
        description: Mapping[str, Any] = manifest.artifacts["onnxruntime"]
        model, required = directory / description["path"], description["isa"]
        options = OrtOptions(threads=threads, providers=(description["provider"],))
        exact = description["exact_on_any_cpu"]
        oldest = description["requires"]["onnxruntime"].removeprefix(">=")
        count_version(oldest)
        if not isinstance(exact, bool):
            raise TypeError(f"exact_on_any_cpu is {exact!r}, neither true nor false")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptArtifact(
            f"the manifest describes no ONNX Runtime model: {error}",
            where=str(directory / MANIFEST_NAME),
            cure="export it with --target onnxruntime",
        ) from error
    _require_runtime(oldest, directory)
    machine = detect()
    if not exact and not may_run_on(required, machine):
        raise CorruptArtifact(
            f"it was made for {required}; on this CPU ({machine.level}) its answers would differ",
            where=str(directory),
            cure=f"export it here, or with --for-isa {machine.level}",
        )
    notes = check_kernels(description, f"{directory / MANIFEST_NAME}:artifacts.onnxruntime")
    return ChosenModel(path=model, options=options, notes=notes)


def choose_plan(directory: Path, manifest: Manifest) -> Path:
    """Return the TensorRT plan of an exported directory.

    Raises:
        CorruptArtifact: it holds none: another target, the graph alone, or ONNX Runtime was faster.
    """
    try:
        plan: Path = directory / manifest.artifacts["tensorrt"]["path"]
    except (KeyError, TypeError) as error:
        raise CorruptArtifact(
            f"the manifest describes nothing for TensorRT: {error}",
            where=str(directory / MANIFEST_NAME),
            cure="export it with --target tensorrt",
        ) from error
    if plan.suffix != ".plan":
        raise CorruptArtifact(
            "it holds a graph for TensorRT, and no plan", where=str(directory), cure="export it without --lower-only"
        )
    return plan


def _require_runtime(oldest: str, directory: Path) -> None:
    """Raise MissingDependency where the installed ONNX Runtime lacks kernels that the file needs."""
    import onnxruntime

    found = str(onnxruntime.__version__)
    if count_version(found) < count_version(oldest):
        raise MissingDependency(
            f"it needs ONNX Runtime {oldest} or later, this is {found}",
            where=str(directory),
            cure=f"pip install 'onnxruntime>={oldest}'",
        )
