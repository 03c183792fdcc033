"""What is measured of one subject by itself, in processes of its own: loading, memory, throughput, answers, operators.

In: a subject, feeds by shape. Out: plain data. Must not import a runtime.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.measuring.answers import keep_some
from bench.processes.worker_process import TIMEOUT_S
from bench.recordings.recording import Answer, Figures, OpTime, Throughput
from bench.subjects.figures import describe_figures
from bench.subjects.process import SubjectProcess
from bench.subjects.subject import SubjectSpec
from runtimes.artifact import TensorSpec, hash_files
from runtimes.errors import SubjectFailed, UnsupportedModel
from runtimes.ort import describe_onnx_files

# Warm-up before throughput is counted, for each shape.
_WARMUP_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What loading told: inputs, the hash of the files, and figures with the time and memory of loading."""

    inputs: tuple[TensorSpec, ...]
    artifact_sha256: str
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What running alone told; ``left_out`` says what this subject cannot be measured for, one sentence each."""

    peak_memory_bytes: int
    answers: Mapping[str, Answer]
    throughput: tuple[Throughput, ...]
    ops: tuple[OpTime, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlonePlan:
    """What to measure.

    Attributes:
        streams: Numbers of concurrent callers to measure throughput with; empty measures none.
        stream_seconds: How long, for each shape and number.
        op_runs: Runs to profile at each shape; 0 profiles none.
        timeout_s: Longest wait for one answer.
    """

    streams: tuple[int, ...] = ()
    stream_seconds: float = 1.0
    op_runs: int = 0
    timeout_s: float = TIMEOUT_S


def weigh_subject(spec: SubjectSpec, *, loads: int, timeout_s: float = TIMEOUT_S) -> Weighed:
    """Count what the files hold, then load the model ``loads`` times, each in a new process.

    The files are in the page cache from then on: what is timed is a start on a machine that has run the model before.

    Raises:
        CorruptArtifact, UnsupportedModel, MissingDependency: it cannot be loaded.
        SubjectFailed: loading crashed or took too long.
    """
    figures, sha256 = describe_figures(spec), hash_model(spec)
    opened = []
    for _ in range(loads):
        with SubjectProcess(spec, timeout_s=timeout_s) as process:
            opened.append(process.open())
    memory = statistics.median_low(one.load_memory_bytes for one in opened)
    return Weighed(
        inputs=opened[0].inputs,
        artifact_sha256=sha256,
        figures=replace(figures, load_ns=tuple(one.load_ns for one in opened), load_memory_bytes=memory),
    )


def measure_alone(spec: SubjectSpec, feeds: Mapping[str, Path], plan: AlonePlan) -> Alone:
    """Run the subject at every shape in one process; profile it in another.

    Raises:
        SubjectFailed: it crashed or did not answer in time. What the subject itself reports passes through.
    """
    with SubjectProcess(spec, timeout_s=plan.timeout_s) as process, tempfile.TemporaryDirectory() as folder:
        process.open()
        answers = {shape: _answer(process, path, Path(folder) / "answer.npz") for shape, path in feeds.items()}
        # Before several streams, which hold several times as much.
        peak = process.peak_memory_bytes()
        throughput, too_many = _measure_streams(process, feeds, plan)
    ops, unprofiled = _profile(spec, feeds, plan) if plan.op_runs else ((), ())
    return Alone(
        peak_memory_bytes=peak, answers=answers, throughput=throughput, ops=ops, left_out=(*too_many, *unprofiled)
    )


def _answer(process: SubjectProcess, feeds: Path, out: Path) -> Answer:
    process.prepare(feeds)
    process.warm_up(_WARMUP_S)
    process.answer(out)
    with np.load(out, allow_pickle=False) as arrays:
        return keep_some({name: arrays[name] for name in arrays.files})


def _measure_streams(
    process: SubjectProcess, feeds: Mapping[str, Path], plan: AlonePlan
) -> tuple[tuple[Throughput, ...], tuple[str, ...]]:
    """Return the throughput of each shape and number of streams, and why some numbers are left out."""
    found, left_out = [], []
    for streams in plan.streams:
        try:
            found += list(_measure_stream(process, feeds, streams, plan.stream_seconds))
        except SubjectFailed:
            raise
        except UnsupportedModel as error:
            left_out.append(f"{process.spec.label} with {streams} streams: {error.what}")
    return tuple(found), tuple(left_out)


def _measure_stream(
    process: SubjectProcess, feeds: Mapping[str, Path], streams: int, seconds: float
) -> Iterator[Throughput]:
    for shape, path in feeds.items():
        process.prepare(path)
        process.warm_up(_WARMUP_S)
        runs, ns = process.run_streams(streams, seconds)
        yield Throughput(shape=shape, streams=streams, runs=runs, ns=ns)


def _profile(
    spec: SubjectSpec, feeds: Mapping[str, Path], plan: AlonePlan
) -> tuple[tuple[OpTime, ...], tuple[str, ...]]:
    """Return the operators at each shape, or why the runtime cannot tell them."""
    with SubjectProcess(spec, timeout_s=plan.timeout_s) as process:
        process.open()
        try:
            return tuple(_profile_shapes(process, feeds, plan.op_runs)), ()
        except SubjectFailed:
            raise
        except UnsupportedModel as error:
            return (), (f"{spec.label} by operator: {error.what}",)


def _profile_shapes(process: SubjectProcess, feeds: Mapping[str, Path], runs: int) -> Iterator[OpTime]:
    for shape, path in feeds.items():
        process.prepare(path)
        yield from (replace(one, shape=shape) for one in process.profile_ops(runs))


def hash_model(spec: SubjectSpec) -> str:
    """Return one hash over the files that are the model; of a checkpoint, the weights and the config."""
    if spec.kind == "onnx":
        return hash_files(describe_onnx_files(spec.model))
    if spec.kind in ("pt2", "plan"):
        return hash_files((spec.model,))
    return hash_files(_list_checkpoint(spec.model))


def _list_checkpoint(folder: Path) -> tuple[Path, ...]:
    patterns = ("*.safetensors", "pytorch_model*.bin", "config.json")
    return tuple(sorted(path for pattern in patterns for path in folder.glob(pattern)))
