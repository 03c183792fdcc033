"""Measures subjects against each other and each by itself, and puts everything into one recording.

In: subjects, a maker of feeds, a plan. Out: a recording, and what failed. A subject that fails is recorded with its
failure and the others go on. Must not import a runtime.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bench.machine.commit import find_commit
from bench.machine.description import describe_machine
from bench.measuring.alone import Alone, AlonePlan, Weighed, measure_alone, weigh_subject
from bench.measuring.answers import MakeFeeds
from bench.measuring.conditions import Watch, describe_conditions, watch_machine
from bench.measuring.rounds import ROUND_PLAN, Measured, measure_rounds, pair_timings
from bench.recordings.recording import Recording, SubjectRecord, Timing
from bench.subjects.subject import SubjectSpec
from bench.timing.compare import MIN_ROUNDS, compare
from bench.timing.measure import MeasurePlan
from runtimes.artifact import hash_file
from runtimes.errors import StepdownError

# The scheme of a duel, with blocks long enough for quantiles and rounds enough for a bound.
ROUNDS = replace(ROUND_PLAN, blocks=15, block_seconds=0.2)
# With a time budget rounds go on until the bounds are narrow.
MOST_ROUNDS = 400


class Task(Protocol):
    """Counted work under way."""

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more items are done."""
        ...


class Observer(Protocol):
    """Who is told what is being done."""

    def task(self, title: str, total: int | None) -> AbstractContextManager[Task]:
        """Count work: ``total`` items, None where it is not known beforehand."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPlan:
    """How to record.

    Attributes:
        rounds: Of the interleaved timings. With a ``time_budget_s`` they end early once the bounds are narrow.
        alone: What is measured of each subject by itself.
        loads: How often each model is loaded, for the time that takes.
        width: How wide the bound of every ratio may be to end early: 0.02 is from 1 % below to 1 % above.
    """

    rounds: MeasurePlan = ROUNDS
    alone: AlonePlan = field(default_factory=AlonePlan)
    loads: int = 3
    width: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The recording, and by label the errors of subjects that failed."""

    recording: Recording
    failures: Mapping[str, StepdownError]


@dataclass(slots=True)
class _Findings:
    """What is known so far, by label."""

    weighed: dict[str, Weighed] = field(default_factory=dict)
    alone: dict[str, Alone] = field(default_factory=dict)
    failures: dict[str, StepdownError] = field(default_factory=dict)

    @contextmanager
    def catch_failure(self, spec: SubjectSpec) -> Iterator[None]:
        """Note what goes wrong with one subject, and go on."""
        try:
            yield
        except StepdownError as error:
            self.failures[spec.label] = error

    def able(self, specs: Sequence[SubjectSpec]) -> list[SubjectSpec]:
        """Return the subjects that have not failed."""
        return [spec for spec in specs if spec.label not in self.failures]


def record(specs: Sequence[SubjectSpec], make_feeds: MakeFeeds, plan: RecordPlan, observer: Observer) -> Recorded:
    """Load each subject, time all of them interleaved at all shapes, then measure each alone.

    Args:
        specs: The subjects; the first is the reference. Their labels differ.
        make_feeds: Given the inputs of each subject that loads: by shape, an ``.npz`` file with what any of them takes.
        plan: How.
        observer: Who is told.

    Raises:
        StepdownError: no subject could be loaded: the error of the first. What ``make_feeds`` raises passes through.
    """
    # Described first: afterwards the load would be our own.
    started, machine = datetime.now(UTC), describe_machine(specs[0].threads, specs[0].affinity)
    findings = _Findings()
    _weigh_all(specs, plan, findings, observer)
    able = findings.able(specs)
    if not able:
        raise findings.failures[specs[0].label]
    feeds = make_feeds([findings.weighed[spec.label].inputs for spec in able])
    with _watch(able) as watch:
        measured = _measure_all(able, feeds, plan, observer)
    findings.failures.update(measured.failures)
    _measure_each(findings.able(specs), feeds, plan.alone, findings, observer)
    recording = Recording(
        run=uuid.uuid4().hex,
        started=started.isoformat(timespec="seconds"),
        commit=find_commit(),
        machine=machine,
        conditions=describe_conditions(watch, measured.timings),
        plan=_describe_plan(plan, feeds, measured, findings),
        subjects=tuple(_describe_subject(spec, findings) for spec in specs),
        timings=measured.timings,
        feeds={shape: hash_file(path) for shape, path in feeds.items()},
    )
    return Recorded(recording=recording, failures=findings.failures)


def is_narrow(timings: tuple[Timing, ...], labels: Sequence[str], width: float) -> bool:
    """Return whether the bound of every ratio to the first subject is at most so wide. It looks at no verdict."""
    reference, *others = labels
    pairs = [pair for label in others for pair in pair_timings(timings, reference, label).values()]
    found = [compare(base, head) for base, head in pairs]
    return bool(found) and all(one.rounds >= MIN_ROUNDS and one.high <= one.low * (1 + width) for one in found)


def _weigh_all(specs: Sequence[SubjectSpec], plan: RecordPlan, findings: _Findings, observer: Observer) -> None:
    with observer.task("loading", len(specs)) as task:
        for spec in specs:
            with findings.catch_failure(spec):
                findings.weighed[spec.label] = weigh_subject(spec, loads=plan.loads, timeout_s=plan.alone.timeout_s)
            task.advance()


def _watch(specs: Sequence[SubjectSpec]) -> AbstractContextManager[Watch]:
    with_gpu = any(spec.device != "cpu" for spec in specs)
    return watch_machine(specs[0].threads, specs[0].affinity, with_gpu=with_gpu)


def _measure_all(
    specs: Sequence[SubjectSpec], feeds: Mapping[str, Path], plan: RecordPlan, observer: Observer
) -> Measured:
    rounds, labels = plan.rounds, [spec.label for spec in specs]
    if rounds.time_budget_s is not None:
        rounds = replace(rounds, blocks=MOST_ROUNDS)

    def is_enough(measured: Measured) -> bool:
        return rounds.time_budget_s is not None and is_narrow(measured.timings, labels, plan.width)

    with observer.task("timing, interleaved", rounds.blocks if rounds.time_budget_s is None else None) as task:
        return measure_rounds(
            specs,
            feeds,
            rounds,
            is_enough=is_enough,
            on_round=lambda _done, _planned: task.advance(),
            timeout_s=plan.alone.timeout_s,
        )


def _measure_each(
    specs: Sequence[SubjectSpec], feeds: Mapping[str, Path], plan: AlonePlan, findings: _Findings, observer: Observer
) -> None:
    with observer.task("each alone", len(specs)) as task:
        for spec in specs:
            with findings.catch_failure(spec):
                findings.alone[spec.label] = measure_alone(spec, feeds, plan)
            task.advance()


def _describe_subject(spec: SubjectSpec, findings: _Findings) -> SubjectRecord:
    weighed, alone = findings.weighed.get(spec.label), findings.alone.get(spec.label)
    failure = findings.failures.get(spec.label)
    described = SubjectRecord(
        label=spec.label,
        runtime=spec.runtime,
        device=spec.device,
        model=str(spec.model),
        failure=str(failure) if failure is not None else None,
    )
    if weighed is not None:
        described = replace(described, artifact_sha256=weighed.artifact_sha256, figures=weighed.figures)
    if alone is None:
        return described
    return replace(
        described,
        figures=replace(described.figures, peak_memory_bytes=alone.peak_memory_bytes),
        throughput=alone.throughput,
        ops=alone.ops,
        answers=alone.answers,
    )


def _describe_plan(
    plan: RecordPlan, feeds: Mapping[str, Path], measured: Measured, findings: _Findings
) -> dict[str, object]:
    """Say how it was measured, for people."""
    rounds = asdict(plan.rounds)
    done = min((len(timing.ns) for timing in measured.timings), default=0)
    return {
        "rounds": done,
        **{name: rounds[name] for name in ("block_seconds", "pause_s", "discard", "warmup_seconds", "time_budget_s")},
        "shapes": list(feeds),
        "loads": plan.loads,
        "left_out": [sentence for alone in findings.alone.values() for sentence in alone.left_out],
    }
