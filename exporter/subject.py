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
from pathlib import Path
from typing import Any

from exporter.kernel_check import check_kernels
from exporter.versions import count_version
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
    """An open model.

    Attributes:
        session: Runs it.
        task: What it does, where that is known.
        tokenizer: The file, if there is one.
        labels: The names of the classes by index; empty where the model has none.
        notes: What is worth knowing of how it runs here, one sentence each.
    """

    session: Session
    task: str | None
    tokenizer: Path | None
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """The model file of an exported directory, options with the provider it was measured on, and notes on it."""

    path: Path
    options: OrtOptions
    notes: tuple[str, ...] = ()


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
        opened, notes = _open_exported(path, manifest, threads, tensorrt)
        with closing(opened) as session:
            yield _make_subject(session, task or manifest.source.get("task"), path, notes)
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


def _open_exported(
    directory: Path, manifest: Manifest, threads: int | None, tensorrt: TensorRt
) -> tuple[Session, tuple[str, ...]]:
    """Open what ships: the ONNX Runtime model where there is one, else the TensorRT plan; never one for the other."""
    if "onnxruntime" in manifest.artifacts or "tensorrt" not in manifest.artifacts:
        chosen = choose_artifact(directory, manifest, threads)
        return OnnxRuntime(chosen.options).open(describe_onnx(chosen.path)), chosen.notes
    entry = manifest.artifacts["tensorrt"]
    if "provider" in entry:
        options = OrtOptions(threads=threads, providers=(entry["provider"],))
        return OnnxRuntime(options).open(describe_onnx(directory / entry["path"])), ()
    plan = choose_plan(directory, manifest)
    return tensorrt.open(describe_plan(plan, verify_plan(plan))), ()


def _make_subject(session: Session, task: str | None, directory: Path, notes: tuple[str, ...] = ()) -> Subject:
    tokenizer = directory / "tokenizer.json"
    return Subject(
        session=session,
        task=task,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        labels=read_labels(directory),
        notes=notes,
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

    found = str(onnxruntime.__version__)
    if count_version(found) < count_version(oldest):
        raise MissingDependency(
            f"it needs ONNX Runtime {oldest} or later, this is {found}",
            where=str(directory),
            cure=f"pip install 'onnxruntime>={oldest}'",
        )
