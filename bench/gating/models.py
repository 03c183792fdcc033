"""Runs two models against each other here and puts what was found into a recording, which the gate then judges.

In: two subjects, a maker of feeds, limits. Out: a :class:`~bench.recordings.recording.Recording` of both. Must not
import a runtime.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from bench.gating.duel import Duel, DuelPlan, run_duel
from bench.gating.rule import GateLimits
from bench.machine.commit import find_commit
from bench.machine.description import describe_machine
from bench.measuring.alone import hash_model
from bench.measuring.answers import Answers, MakeFeeds, keep_some
from bench.measuring.conditions import describe_conditions, watch_machine
from bench.recordings.recording import Recording, SubjectRecord
from bench.subjects.figures import describe_figures
from bench.subjects.subject import SubjectSpec
from runtimes.artifact import hash_file


def record_duel(
    base: SubjectSpec,
    head: SubjectSpec,
    make_feeds: MakeFeeds,
    limits: GateLimits,
    plan: DuelPlan,
    on_round: Callable[[int, int], None] | None = None,
) -> Recording:
    """Load both, compare what they answer, and time them interleaved until the bound is tight or the time is up.

    Args:
        base: The reference.
        head: What is judged.
        make_feeds: Given the inputs of both: by shape, an ``.npz`` file with what either takes.
        limits: Whose bounds must become tight.
        plan: How long, and how alike. Loading counts into the time.
        on_round: Told after each round how many are done and how many are planned at most.

    Raises:
        ParityFailure: the two answer differently; nothing was timed.
        SubjectFailed: one of them crashed or hung. Its own errors, and those of ``make_feeds``, pass through.
    """
    started, start_s = datetime.now(UTC), time.monotonic()
    # Described first: afterwards the load would be our own.
    machine = describe_machine(base.threads, base.affinity)
    with watch_machine(base.threads, base.affinity, with_gpu="cpu" not in {base.device, head.device}) as watch:
        left_s = max(0.0, plan.time_budget_s - (time.monotonic() - start_s))
        duel = run_duel(base, head, make_feeds, limits, replace(plan, time_budget_s=left_s), on_round)
    return Recording(
        run=uuid.uuid4().hex,
        started=started.isoformat(timespec="seconds"),
        commit=find_commit(),
        machine=machine,
        conditions=describe_conditions(watch, duel.timings),
        plan={"rounds": _count_rounds(duel), "shapes": list(duel.feeds), "time_budget_s": plan.time_budget_s},
        subjects=tuple(_describe(spec, duel.answers[spec.label]) for spec in (base, head)),
        timings=duel.timings,
        feeds={shape: hash_file(path) for shape, path in duel.feeds.items()},
    )


def _describe(spec: SubjectSpec, answers: Answers) -> SubjectRecord:
    figures = replace(
        describe_figures(spec),
        load_memory_bytes=answers.opened.load_memory_bytes,
        load_ns=(answers.opened.load_ns,),
    )
    return SubjectRecord(
        label=spec.label,
        runtime=spec.runtime,
        device=spec.device,
        model=str(spec.model),
        artifact_sha256=hash_model(spec),
        figures=figures,
        answers={shape: keep_some(outputs) for shape, outputs in answers.outputs.items()},
    )


def _count_rounds(duel: Duel) -> int:
    return min((len(timing.ns) for timing in duel.timings), default=0)
