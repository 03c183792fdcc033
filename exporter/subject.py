"""Opens whatever a user may want to run or evaluate: an exported directory, an ONNX file, or a checkpoint.

In: a path. Out: an open session with its tokenizer, task and class names; an exported directory is verified first.
Must not import: torch at module level (a checkpoint is traced, which imports it).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from runtimes.artifact import MANIFEST_NAME
from runtimes.bundle.open_variant import ServeOptions
from runtimes.bundle.trust import Trust
from runtimes.errors import UnsupportedModel
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.serving.bundle import is_bundle, open_bundle, refuse_trust
from runtimes.serving.subject import Subject, make_subject
from runtimes.trt.open_plan import open_plan


@contextmanager
def open_subject(
    reference: str,
    *,
    task: str | None = None,
    threads: int | None = None,
    allow_host_code: bool = False,
    trust: Trust | None = None,
) -> Iterator[Subject]:
    """Open a model for as long as the block runs.

    Args:
        reference: A directory that ``export`` wrote, a bundle or an installed one, an ``.onnx`` file, a ``.plan`` of
            TensorRT, or anything that ``export`` takes.
        task: What the model does, where its files do not say.
        threads: Threads to run with; None uses every core.
        allow_host_code: Whether a plan may bring code of who built it, as version-compatible ones do.
        trust: Whose signature is asked for of a bundle.

    Raises:
        CorruptArtifact: a file of an exported directory or a bundle is missing, changed, or made for another CPU.
        UsageError: a plan brings code that is not allowed, or a signature is asked for of what has none.
        UnsupportedModel: it is not a model, or cannot be traced.
    """
    path = Path(reference)
    packed = is_bundle(path)
    if not packed:
        refuse_trust(trust, path)
    if packed or (path / MANIFEST_NAME).is_file():
        options = ServeOptions(threads=threads, allow_host_code=allow_host_code)
        # The notes say what it steps back from.
        with open_bundle(path, trust=trust).session(options, say=lambda _: None) as answering:
            yield replace(answering.subject, task=task or answering.subject.task)
    elif path.suffix == ".plan":
        with closing(open_plan(path, allow_host_code=allow_host_code)) as session:
            yield make_subject(session, task, path.parent)
    elif path.suffix == ".onnx":
        if not path.is_file():
            raise UnsupportedModel("there is no such model", where=reference, cure="check the path")
        with _open_onnx(path, OrtOptions(threads=threads), task, path.parent) as subject:
            yield subject
    else:
        with _open_traced(reference, task, threads) as subject:
            yield subject


@contextmanager
def _open_onnx(model: Path, options: OrtOptions, task: str | None, directory: Path) -> Iterator[Subject]:
    with closing(OnnxRuntime(options).open(describe_onnx(model))) as session:
        yield make_subject(session, task, directory)


@contextmanager
def _open_traced(reference: str, task: str | None, threads: int | None) -> Iterator[Subject]:
    """Trace a checkpoint to plain float ONNX in a temporary directory: the same arithmetic that is served."""
    from exporter.source import open_source
    from exporter.tracing.trace import trace

    source = open_source(reference, task=task)
    with tempfile.TemporaryDirectory() as scratch:
        traced = trace(source, Path(scratch))
        with _open_onnx(traced.artifact.path, OrtOptions(threads=threads), traced.task, Path(scratch)) as subject:
            yield subject
