"""Opens whatever a user may want to run or evaluate: an exported directory, an ONNX file, or a checkpoint.

In: a path. Out: an open session with its tokenizer, task and class names; an exported directory is verified first.
Must not import: torch at module level (a checkpoint is traced, which imports it).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runtimes.artifact import MANIFEST_NAME, Manifest, hash_file, read_manifest
from runtimes.errors import CorruptArtifact, MissingDependency, UnsupportedModel
from runtimes.isa import detect, may_run_on
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.protocol import Session
from runtimes.trt.options import RunOptions, TrtOptions
from runtimes.trt.record import describe_plan, verify_plan
from runtimes.trt.runtime import TensorRt


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An open model. ``labels`` names the classes by index; empty where the model has none."""

    session: Session
    task: str | None
    tokenizer: Path | None
    labels: tuple[str, ...]


@contextmanager
def open_subject(
    reference: str, *, task: str | None = None, threads: int | None = None, allow_host_code: bool = False
) -> Iterator[Subject]:
    """Open a model for as long as the block runs.

    Args:
        reference: A directory that ``export`` wrote, an ``.onnx`` file, a ``.plan`` of TensorRT, or anything that
            ``export`` takes.
        task: What the model does, where its files do not say.
        threads: Threads to run with; None uses every core.
        allow_host_code: Whether a plan may bring code of who built it, as version-compatible ones do.

    Raises:
        CorruptArtifact: a file of an exported directory is missing, changed, or made for another CPU.
        UsageError: a plan brings code that is not allowed.
        UnsupportedModel: it is not a model, or cannot be traced.
    """
    path = Path(reference)
    tensorrt = TensorRt(TrtOptions(run=RunOptions(allow_host_code=allow_host_code)))
    if (path / MANIFEST_NAME).is_file():
        manifest = read_manifest(path)
        verify_files(path, manifest)
        with closing(_open_exported(path, manifest, threads, tensorrt)) as session:
            yield _make_subject(session, task or manifest.source.get("task"), path)
    elif path.suffix == ".plan":
        with closing(tensorrt.open(describe_plan(path, verify_plan(path)))) as session:
            yield _make_subject(session, task, path.parent)
    elif path.suffix == ".onnx":
        if not path.is_file():
            raise UnsupportedModel("there is no such model", where=reference, cure="check the path")
        with _open_onnx(path, OrtOptions(threads=threads), task, path.parent) as subject:
            yield subject
    else:
        with _open_traced(reference, task, threads) as subject:
            yield subject


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


def read_labels(directory: Path) -> tuple[str, ...]:
    """Return the class names by index from ``config.json``'s ``id2label``; empty where there is none."""
    path = directory / "config.json"
    if not path.is_file():
        return ()
    try:
        names: Mapping[str, str] = json.loads(path.read_text(encoding="utf-8")).get("id2label") or {}
        return tuple(names[key] for key in sorted(names, key=int))
    except (ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact("the class names cannot be read", where=f"{path}:id2label", cure="mend it") from error


def _open_exported(directory: Path, manifest: Manifest, threads: int | None, tensorrt: TensorRt) -> Session:
    """Open what ships: the ONNX Runtime model where there is one, else the TensorRT plan; never one for the other."""
    if "onnxruntime" in manifest.artifacts or "tensorrt" not in manifest.artifacts:
        model, options = choose_artifact(directory, manifest, threads)
        return OnnxRuntime(options).open(describe_onnx(model))
    entry = manifest.artifacts["tensorrt"]
    if "provider" in entry:
        options = OrtOptions(threads=threads, providers=(entry["provider"],))
        return OnnxRuntime(options).open(describe_onnx(directory / entry["path"]))
    plan = choose_plan(directory, manifest)
    return tensorrt.open(describe_plan(plan, verify_plan(plan)))


def _make_subject(session: Session, task: str | None, directory: Path) -> Subject:
    tokenizer = directory / "tokenizer.json"
    return Subject(
        session=session,
        task=task,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        labels=read_labels(directory),
    )


@contextmanager
def _open_onnx(model: Path, options: OrtOptions, task: str | None, directory: Path) -> Iterator[Subject]:
    with closing(OnnxRuntime(options).open(describe_onnx(model))) as session:
        yield _make_subject(session, task, directory)


@contextmanager
def _open_traced(reference: str, task: str | None, threads: int | None) -> Iterator[Subject]:
    """Trace a checkpoint to plain float ONNX in a temporary directory: the same arithmetic that is served."""
    from exporter.source import open_source
    from exporter.trace import trace

    source = open_source(reference, task=task)
    with tempfile.TemporaryDirectory() as scratch:
        traced = trace(source, Path(scratch))
        with _open_onnx(traced.artifact.path, OrtOptions(threads=threads), traced.task, Path(scratch)) as subject:
            yield subject


def choose_artifact(directory: Path, manifest: Manifest, threads: int | None) -> tuple[Path, OrtOptions]:
    """Return the model file of an exported directory, and options with the provider it was measured on.

    Raises:
        CorruptArtifact: the manifest names none, or its answers would differ on this CPU.
        MissingDependency: it needs a later ONNX Runtime, or the sparse kernels of a later stepdown.
    """
    try:
        description: Mapping[str, Any] = manifest.artifacts["onnxruntime"]
        model, required = directory / description["path"], description["isa"]
        options = OrtOptions(threads=threads, providers=(description["provider"],))
        exact = description["exact_on_any_cpu"]
        oldest = {package: text.removeprefix(">=") for package, text in description["requires"].items()}
        runtime, kernels = oldest["onnxruntime"], oldest.get("stepdown", "0.0")
        for needed in (runtime, kernels):
            _count_version(needed)
        if not isinstance(exact, bool):
            raise TypeError(f"exact_on_any_cpu is {exact!r}, neither true nor false")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptArtifact(
            f"the manifest describes no ONNX Runtime model: {error}",
            where=str(directory / MANIFEST_NAME),
            cure="export it with --target onnxruntime",
        ) from error
    _require_runtime(runtime, directory)
    _require_version("the sparse kernels of stepdown", kernels, version("stepdown"), directory, package="stepdown")
    machine = detect()
    if not exact and not may_run_on(required, machine):
        raise CorruptArtifact(
            f"it was made for {required}; on this CPU ({machine.level}) its answers would differ",
            where=str(directory),
            cure=f"export it here, or with --for-isa {machine.level}",
        )
    return model, options


def choose_plan(directory: Path, manifest: Manifest) -> Path:
    """Return the TensorRT plan of an exported directory.

    Raises:
        CorruptArtifact: it holds none: another target, the graph alone, or ONNX Runtime was faster.
    """
    try:
        plan = directory / manifest.artifacts["tensorrt"]["path"]
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

    _require_version("ONNX Runtime", oldest, str(onnxruntime.__version__), directory, package="onnxruntime")


def _require_version(what: str, oldest: str, found: str, directory: Path, *, package: str) -> None:
    if _count_version(found) < _count_version(oldest):
        raise MissingDependency(
            f"it needs {what} {oldest} or later, this is {found}",
            where=str(directory),
            cure=f"pip install '{package}>={oldest}'",
        )


def _count_version(version: str) -> tuple[int, ...]:
    """``1.31.1`` -> (1, 31): kernels come with minor versions."""
    return tuple(int(part) for part in version.split(".")[:2])
