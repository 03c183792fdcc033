"""Pruned MiniLM as a whole: ONNX Runtime, DeepSparse and what ``stepdown export`` makes of it, interleaved in one run.

In: a checkpoint. Out: samples by share pruned, number of threads and shape. Exports and peers are made first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.peers import stepdown_cli
from bench.peers.build_once import build_once
from bench.peers.deepsparse_session import DeepSparseSession, export_encoder
from bench.pruned import prune_checkpoint
from bench.subjects.texts import Feeds, select_feeds
from bench.timing.measure import Clock, MeasurePlan, measure_interleaved
from bench.timing.samples import Samples
from runtimes.artifact import hash_file, read_manifest
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.protocol import Session

DENSE, NO_SKIP, DEEPSPARSE = "ort-fp32", "ort-fp32-noskip", "deepsparse"
FLOAT, OURS = "stepdown-fp32", "stepdown"
TITLES: Mapping[str, str] = {
    DENSE: "ONNX Runtime FP32, defaults",
    NO_SKIP: "the same, SkipLayerNormalization fusion off",
    DEEPSPARSE: "DeepSparse 1.8",
    FLOAT: "stepdown, `--precision fp32`",
    OURS: "**stepdown, chosen artifact**",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The models of one share: plain float, the one DeepSparse reads, and what was exported by key."""

    float_model: Path
    plain_export: Path
    exported: Mapping[str, Path]


def prepare_files(checkpoint: Path, share: float, work: Path, texts: Path, *, keys: Sequence[str]) -> Files:
    """Prune, trace and export; what is no work of ours is made once and kept in ``work``.

    Raises:
        UnsupportedModel: an export failed; the message ends with what it said.
    """
    name = f"pruned-{share * 100:g}"
    pruned = prune_checkpoint(checkpoint, share, work / name)
    depends = {"model": hash_file(pruned / "model.safetensors"), "torch": version("torch")}
    plain = build_once(work, f"{name}-opset13", depends, partial(export_encoder, pruned))
    options = {FLOAT: ("--precision", "fp32"), OURS: ()}
    return Files(
        float_model=stepdown_cli.trace_float(pruned, work / f"{name}-float"),
        plain_export=plain.path,
        exported={
            key: _find_model(
                stepdown_cli.export(pruned, texts, work / f"{name}-{key}", threads=2, options=options[key]).path
            )
            for key in keys
            if key in options
        },
    )


def time_models(
    files: Files,
    feeds: Feeds,
    *,
    keys: Sequence[str],
    threads: int,
    plan: MeasurePlan,
    deepsparse: Path | None,
    machine: Mapping[str, Any],
) -> dict[str, Samples]:
    """Time every subject of ``keys`` on one shape; ``deepsparse`` is the Python that has it."""
    with ExitStack() as stack:
        subjects: dict[str, Callable[[], object]] = {}
        clock = Clock()
        for key in keys:
            if key == DEEPSPARSE:
                assert deepsparse is not None, "asked for with its environment"
                peer = stack.enter_context(
                    closing(DeepSparseSession(deepsparse, files.plain_export, feeds, threads=threads))
                )
                subjects[key] = peer.prepare(feeds)
                # Its process times itself; talking to it is nobody's time.
                clock = Clock(now_ns=partial(_tell_time_without, peer))
                continue
            session = stack.enter_context(closing(_open(key, files, threads)))
            subjects[key] = session.prepare(select_feeds(session.inputs, feeds))
        return measure_interleaved(subjects, plan, clock=clock, machine=machine)


def list_sizes(files: Files) -> Iterator[tuple[str, int]]:
    """Yield the size of each model in bytes."""
    for key in (DENSE, *files.exported):
        yield key, describe_onnx(_find_path(key, files)).size_bytes()


def _tell_time_without(peer: DeepSparseSession) -> int:
    return time.perf_counter_ns() - peer.overhead_ns


def _open(key: str, files: Files, threads: int) -> Session:
    disabled = ("SkipLayerNormFusion",) if key == NO_SKIP else ()
    return OnnxRuntime(OrtOptions(threads=threads, disabled_optimizers=disabled)).open(
        describe_onnx(_find_path(key, files))
    )


def _find_path(key: str, files: Files) -> Path:
    return files.exported.get(key, files.float_model)


def _find_model(directory: Path) -> Path:
    path: Path = directory / read_manifest(directory).artifacts["onnxruntime"]["path"]
    return path
