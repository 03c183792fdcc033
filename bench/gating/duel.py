"""Runs base and head against each other on this machine until the bound is tight or the time is up.

In: two subjects, feeds by shape, limits. Out: a recording of both. Must not import a runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.gating.rule import GateLimits, is_tight
from bench.measuring.answers import Answers, MakeFeeds, collect_answers, make_tolerance, require_alike
from bench.measuring.rounds import ROUND_PLAN, Measured, measure_rounds, pair_timings
from bench.processes.worker_process import TIMEOUT_S
from bench.recordings.recording import Timing
from bench.subjects.subject import SubjectSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DuelPlan:
    """How to run a duel.

    Attributes:
        time_budget_s: No round is begun that would end after this, whatever the bound.
        min_cosine: How alike the outputs must be.
        timeout_s: Longest wait for one answer of a subject.
        seed: Of the order within rounds.
    """

    time_budget_s: float = 30.0
    min_cosine: float = 0.99
    timeout_s: float = TIMEOUT_S
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """What the duel gave: what each answered to which feeds, and the timings of both by shape."""

    answers: Mapping[str, Answers]
    feeds: Mapping[str, Path]
    timings: tuple[Timing, ...]


def run_duel(
    base: SubjectSpec,
    head: SubjectSpec,
    make_feeds: MakeFeeds,
    limits: GateLimits,
    plan: DuelPlan,
    on_round: Callable[[int, int], None] | None = None,
) -> Duel:
    """Compare what the two answer, then time them interleaved.

    Args:
        base: The reference.
        head: What is judged.
        make_feeds: Given the inputs of both: by shape, an ``.npz`` file with what either takes.
        limits: Whose bounds must become tight.
        plan: How long, and how alike.
        on_round: Told after each round how many are done and how many are planned at most.

    Raises:
        ParityFailure: the two answer differently; nothing was timed.
        SubjectFailed: one of them crashed or hung. Its own errors, and those of ``make_feeds``, pass through.
    """
    start_s = time.monotonic()
    answers, feeds = collect_answers((base, head), make_feeds, timeout_s=plan.timeout_s)
    require_alike(answers[base.label].outputs, answers[head.label].outputs, make_tolerance(plan.min_cosine))

    def is_enough(measured: Measured) -> bool:
        return is_tight(pair_timings(measured.timings, base.label, head.label), limits)

    left_s = max(0.0, plan.time_budget_s - (time.monotonic() - start_s))
    measured = measure_rounds(
        (base, head),
        feeds,
        replace(ROUND_PLAN, time_budget_s=left_s, seed=plan.seed),
        is_enough=is_enough,
        on_round=on_round,
        timeout_s=plan.timeout_s,
    )
    for error in measured.failures.values():
        raise error
    return Duel(answers=answers, feeds=feeds, timings=measured.timings)
