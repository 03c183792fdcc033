"""What one bench run found, whole, and its file: raw nanoseconds of every shape and subject, and what is beside time.

In and out: :class:`Recording` and a JSON file. Nothing here is a summary of the raw timings; those are computed on
reading. Must not import a runtime. ``msgspec`` checks every part of what is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bench.recordings.ledger import LedgerRow
from bench.timing.samples import Samples
from runtimes.atomic import write_bytes
from runtimes.errors import CorruptArtifact, UsageError

# 1 held the samples alone, without shapes, subjects or the run they belong to.
SCHEMA = 2
KIND = "stepdown-samples"
_CURE = "measure again with `stepdown bench -o`; a sample file is written whole or not at all"

# Three centuries of nanoseconds; a larger number would be no float either.
_MOST = 2**63 - 1
Positive = Annotated[int, msgspec.Meta(gt=0, le=_MOST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
# Some values of each output; None is what is not finite, which JSON cannot say.
Answer = Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is known of a subject without a clock, and how long it loads.

    ``nodes`` and ``parameters`` are None where the file does not tell (a checkpoint has no graph). Memory is of a
    process of its own: ``load_memory_bytes`` is what opening the model adds, ``peak_memory_bytes`` the most it held.
    """

    size_bytes: Count | None = None
    nodes: Count | None = None
    parameters: Count | None = None
    load_memory_bytes: Count | None = None
    peak_memory_bytes: Count | None = None
    load_ns: tuple[Positive, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """``value`` of ``metric`` (larger is better) over ``samples`` samples."""

    metric: str
    value: float
    samples: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """``runs`` of one shape, by ``streams`` concurrent callers, finished in ``ns``."""

    shape: str
    streams: Positive
    runs: Positive
    ns: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTime:
    """One operator of the executed graph: ``ns`` is its mean time in one run of ``shape``.

    ``module`` is the path of the module it came from (``encoder.layer.0.attention.self.query``), empty where unknown.
    """

    shape: str
    op: str
    name: str
    module: str
    ns: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRecord:
    """What was run: ``model`` by ``runtime`` on ``device``; ``failure`` says why it was not, where it was not.

    ``answers`` holds, by shape and output, some of the values it gave (see bench/measuring/answers.py); ``ledger`` says
    what its export made of the zeros in its weights, ``notes`` what else is worth knowing of how it ran here.
    """

    label: str
    runtime: str
    device: str
    model: str
    artifact_sha256: str | None = None
    figures: Figures = Figures()
    accuracy: Accuracy | None = None
    throughput: tuple[Throughput, ...] = ()
    ops: tuple[OpTime, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    ledger: tuple[LedgerRow, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How quiet the machine was.

    Attributes:
        probe_gflops: The matrix-product probe before and after.
        steal_share: Share of processor time that the host took away while measuring; None where it is not told.
        busy_share: Share of processor time that other processes used while measuring; None where it is not told.
        gpu: Clocks, temperature and power before, when busiest and after, as NVML tells; empty without a GPU.
        unstable: Why this run should not be trusted, one sentence each with what to do; empty if nothing was seen.
    """

    probe_gflops: tuple[float, ...] = ()
    steal_share: float | None = None
    busy_share: float | None = None
    gpu: tuple[Mapping[str, Any], ...] = ()
    unstable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The raw samples of one subject at one shape; ``ns`` and ``warmup_ns`` as in :mod:`bench.timing.samples`."""

    label: str
    shape: str
    ns: Annotated[tuple[Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)]
    warmup_ns: tuple[Positive, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One bench run. All timings of one shape were interleaved: block ``i`` of each belongs to round ``i``.

    Attributes:
        run: Identity of the run: timings pair only within one.
        started: When, in UTC (ISO 8601).
        commit: What the working directory's git said it was; None outside git.
        machine: What :func:`bench.machine.description.describe_machine` said.
        conditions: How quiet it was.
        plan: How it was measured (blocks, pause, threads, shapes), for people.
        subjects: What was run, in the order given; the first is the reference.
        timings: Raw samples.
        feeds: By shape, the sha256 of the inputs: answers compare only where it is equal.
    """

    run: str
    started: str
    machine: Mapping[str, Any]
    subjects: Annotated[tuple[SubjectRecord, ...], msgspec.Meta(min_length=1)]
    timings: tuple[Timing, ...]
    commit: str | None = None
    conditions: Conditions = Conditions()
    plan: Mapping[str, Any] = field(default_factory=dict)
    feeds: Mapping[str, str] = field(default_factory=dict)

    def shapes(self) -> tuple[str, ...]:
        """Every shape that was timed, in the order measured."""
        return tuple(dict.fromkeys(timing.shape for timing in self.timings))

    def samples(self, label: str, shape: str) -> Samples | None:
        """The samples of one subject at one shape; None where it was not timed there."""
        sha256 = {subject.label: subject.artifact_sha256 for subject in self.subjects}.get(label)
        for timing in self.timings:
            if (timing.label, timing.shape) == (label, shape):
                return Samples(
                    label=label,
                    ns=timing.ns,
                    warmup_ns=timing.warmup_ns,
                    machine=self.machine,
                    artifact_sha256=sha256,
                )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    schema: int
    kind: str
    recording: Recording


def write_recording(path: Path, recording: Recording) -> None:
    """Write a sample file atomically.

    Raises:
        OutputError: no room, or no permission.
    """
    write_bytes(path, encode_recording(recording) + b"\n")


def encode_recording(recording: Recording) -> bytes:
    """Return the recording as one line of JSON, with its kind and schema: a sample file, or a line of a history."""
    return msgspec.json.encode(_Document(schema=SCHEMA, kind=KIND, recording=recording), order="sorted")


def read_recording(path: Path) -> Recording:
    """Read a sample file.

    Raises:
        UsageError: there is no such file.
        CorruptArtifact: it is empty, truncated, of another kind or schema, lacks a part, or holds a duration that is
            not a positive whole number of nanoseconds (NaN included).
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError("there is no such sample file", where=str(path), cure="measure first") from error
    return decode_recording(content, where=str(path))


def decode_recording(content: bytes, *, where: str) -> Recording:
    """Read one recording from JSON; ``where`` names its place in messages. Raises CorruptArtifact."""
    try:
        head = msgspec.json.decode(content)
        if not isinstance(head, dict) or head.get("kind") != KIND:
            raise CorruptArtifact("this is not a sample file", where=where, cure="give what `stepdown bench -o` wrote")
        if head.get("schema") != SCHEMA:
            raise CorruptArtifact(
                f"sample schema {head.get('schema')}, this stepdown reads {SCHEMA}", where=f"{where}:schema", cure=_CURE
            )
        recording = msgspec.convert(head, _Document).recording
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptArtifact(f"the sample file cannot be read: {error}", where=where, cure=_CURE) from error
    _check_labels(recording, where)
    return recording


def _check_labels(recording: Recording, where: str) -> None:
    labels = [subject.label for subject in recording.subjects]
    if len(set(labels)) < len(labels):
        raise CorruptArtifact("two subjects of the sample file have one label", where=where, cure=_CURE)
    for timing in recording.timings:
        if timing.label not in labels:
            raise CorruptArtifact(f"the sample file times {timing.label!r}, no subject of it", where=where, cure=_CURE)
