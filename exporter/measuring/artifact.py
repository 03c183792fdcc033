"""What a model costs to run: latency, size and peak memory of any artifact, in processes of its own.

In: an artifact as :mod:`exporter.measuring.subjects` takes it, and what is asked. Out: figures. A checkpoint is traced
first (:mod:`exporter.located`), so that its figures are those of its float graph in ONNX Runtime.
Must not import: torch, a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.measuring.alone import AlonePlan
from bench.measuring.record import ROUNDS, RecordPlan
from bench.recordings.recording import Recording
from bench.recordings.summary import summarise
from bench.subjects.figures import describe_figures
from exporter.measuring.feeds import Shape
from exporter.measuring.run import BenchOptions, run_bench
from exporter.measuring.subjects import SubjectOptions, resolve_subjects
from exporter.progress import Progress
from runtimes.errors import UsageError

LATENCY, SIZE, MEMORY = "latency", "size", "memory"
MEASURES = (LATENCY, SIZE, MEMORY)
# One artifact has nothing to be compared with: a few rounds tell its latency as well as it will hold.
_ROUNDS = replace(ROUNDS, blocks=6)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """What to measure: some of MEASURES, at (batch, sequence) ``shapes``; none are the usual ones."""

    measures: tuple[str, ...]
    shapes: tuple[Shape, ...] = ()
    subject: SubjectOptions = field(default_factory=SubjectOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles of one run, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was asked for; the rest is None or empty.

    Attributes:
        latency: By shape, such as ``8x128``.
        size_bytes: Of the files that hold the model; tokenizers are none of them.
        peak_memory_bytes: The most that a process of its own held while it loaded and ran every shape.
    """

    latency: Mapping[str, Latency] = field(default_factory=dict)
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what was asked for as plain JSON data."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


def check_measures(names: Sequence[str]) -> None:
    """Raise UsageError where a name is none of MEASURES."""
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"unknown measure {name!r}", where="--measure", cure=f"use some of {', '.join(MEASURES)}")


def measure_artifact(reference: str, options: MeasureOptions, progress: Progress) -> Measured:
    """Measure an artifact that :func:`exporter.located.open_artifact` gave.

    Raises:
        UsageError: there is no such model, or a shape does not fit it.
        CorruptArtifact: it is damaged, or does not fit this CPU.
        SubjectFailed: it crashed, or did not answer in time.
    """
    asked = set(options.measures)
    if not asked & {LATENCY, MEMORY}:
        (subject,) = resolve_subjects((reference,), options.subject)
        return Measured(size_bytes=describe_figures(subject.spec).size_bytes)
    recorded = run_bench(
        BenchOptions(
            subjects=(reference,),
            shapes=options.shapes,
            subject=options.subject,
            plan=RecordPlan(rounds=_ROUNDS, alone=AlonePlan(), loads=1),
        ),
        progress,
    )
    for failure in recorded.failures.values():
        raise failure
    figures = recorded.recording.subjects[0].figures
    return Measured(
        latency=_read_latency(recorded.recording) if LATENCY in asked else {},
        size_bytes=figures.size_bytes if SIZE in asked else None,
        peak_memory_bytes=figures.peak_memory_bytes if MEMORY in asked else None,
    )


def _read_latency(recording: Recording) -> dict[str, Latency]:
    return {
        row.shape: Latency(p50_ms=row.p50_ns / 1e6, p90_ms=row.p90_ns / 1e6, p99_ms=row.p99_ns / 1e6)
        for row in summarise(recording)
    }
