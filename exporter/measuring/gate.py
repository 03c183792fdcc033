"""Judges a model against another: run interleaved here, or from sample files, or the last of a history.

In: what the user named. Out: :class:`Gated`. Must not import: torch at module level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.gating.files import Comparability, is_sample_file, judge_sides, make_side, read_side, split_place
from bench.gating.history import FoundStep, judge_history
from bench.gating.rule import GateLimits
from bench.gating.verdict import GateResult
from bench.recordings.history import read_history
from bench.recordings.recording import Recording, write_recording
from exporter.progress import SilentProgress
from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.progress import Progress

# One request of a usual length: a gate has seconds, and every shape more makes each of them rarer.
GATE_SHAPES = ((1, 128),)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """How to judge.

    Attributes:
        limits: What head is held to.
        shapes: (batch, sequence) pairs; empty judges 1x128 of models, and what sample files have in common.
        time_budget_s: How long to run models at most; it ends earlier once the bound is tight.
        timeout_s: Longest wait for one answer of a model.
        threads: To run models with; None uses every core.
        allow_host_code: Whether plans may bring code of who built them.
        min_cosine: How alike the outputs must be.
        allow_different_machine: Judge sample files of two machines; the answer is then never "same".
        output: Where to write the samples of two models, replacing what is there; None writes none.
    """

    limits: GateLimits = field(default_factory=GateLimits)
    shapes: tuple[tuple[int, int], ...] = ()
    time_budget_s: float = 30.0
    timeout_s: float = 120.0
    threads: int | None = None
    allow_host_code: bool = False
    min_cosine: float = 0.99
    allow_different_machine: bool = False
    output: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """The answer; of a history also every step of its recent past.

    ``recording`` holds the samples behind it, None where they are of two runs; ``history`` what came before.
    """

    result: GateResult
    steps: tuple[FoundStep, ...] = ()
    recording: Recording | None = None
    history: tuple[Recording, ...] = ()


def gate(base: str, head: str, options: GateOptions, progress: Progress | None = None) -> Gated:
    """Judge ``head`` against ``base``: two models, or two sample files.

    Raises:
        UsageError: one is a model and the other a sample file, there is no such model, or no common shape.
        CorruptArtifact: a sample file or an exported directory is damaged.
        ParityFailure: the two answer differently; nothing is said of their times.
        SubjectFailed: one crashed, hung, or was not measured.
        Inconclusive: sample files of different machines, where that is not allowed.
    """
    files = [is_sample_file(side) for side in (base, head)]
    if all(files):
        return _gate_files(base, head, options)
    if any(files):
        raise UsageError(
            "one side is a sample file and the other a model",
            where=base if files[0] else head,
            cure="give two models (recommended: they run interleaved), or two sample files",
        )
    return _gate_models(base, head, options, progress or SilentProgress())


def gate_history(place: str, limits: GateLimits) -> Gated:
    """Judge the last entry of a history (``FILE``, or ``FILE:LABEL`` where entries hold several subjects).

    Raises what :func:`bench.recordings.history.read_history` and :func:`bench.gating.history.judge_history` raise.
    """
    path, label = split_place(place)
    history = read_history(path)
    judged = judge_history(history, limits, label=label, place=str(path))
    return Gated(result=judged.result, steps=judged.steps, recording=history[-1], history=history)


def _gate_files(base: str, head: str, options: GateOptions) -> Gated:
    given = {"--threads": options.threads, "--allow-host-code": options.allow_host_code, "--output": options.output}
    for name, value in given.items():
        if value:
            raise UsageError("sample files are judged as they are", where=name, cure="leave it out, or give two models")
    ours, theirs = read_side(base), read_side(head)
    result = judge_sides(ours, theirs, options.limits, _compare_how(options))
    return Gated(result=result, recording=ours.recording if result.interleaved else None)


def _gate_models(base: str, head: str, options: GateOptions, progress: Progress) -> Gated:
    from bench.gating.duel import DuelPlan
    from bench.gating.models import record_duel
    from exporter.measuring.feeds import FeedsPlan, merge_inputs, write_feeds
    from exporter.measuring.subjects import SubjectOptions, resolve_subjects
    from exporter.probe_feeds import usable_shapes

    how = SubjectOptions(threads=options.threads, allow_host_code=options.allow_host_code)
    subjects = resolve_subjects((base, head), how)
    ours, theirs = (subject.spec for subject in subjects)
    plan = DuelPlan(time_budget_s=options.time_budget_s, min_cosine=options.min_cosine, timeout_s=options.timeout_s)
    progress.step(f"{theirs.label} against {ours.label}")
    with tempfile.TemporaryDirectory() as folder, progress.task("rounds", None) as task:

        def make_feeds(inputs: Sequence[Sequence[TensorSpec]]) -> Mapping[str, Path]:
            shapes = options.shapes or usable_shapes(merge_inputs(inputs), GATE_SHAPES)
            directories = tuple(subject.directory for subject in subjects)
            return write_feeds(inputs, FeedsPlan(shapes=shapes, directories=directories), Path(folder))

        recording = record_duel(ours, theirs, make_feeds, options.limits, plan, lambda _done, _most: task.advance())
    if options.output is not None:
        write_recording(options.output, recording)
    place = str(options.output or "this run")
    first, second = (make_side(recording, spec.label, place=place) for spec in (ours, theirs))
    result = judge_sides(first, second, options.limits, Comparability(min_cosine=options.min_cosine))
    noted = tuple(f"{subject.spec.label}: {note}" for subject in subjects for note in subject.notes)
    return Gated(result=replace(result, notes=(*result.notes, *noted)), recording=recording)


def _compare_how(options: GateOptions) -> Comparability:
    return Comparability(
        shapes=tuple(f"{batch}x{sequence}" for batch, sequence in options.shapes),
        min_cosine=options.min_cosine,
        allow_different_machine=options.allow_different_machine,
    )
