"""Times several subjects against each other, interleaved, so that the machine's moods hit all of them alike.

In: named callables and a plan. Out: raw :class:`~bench.timing.samples.Samples` of each. Must not import a runtime.

The scheme: rounds; in each, every subject gets one block of runs, in random order. Blocks, because alternating
single runs of two thread pools disturb both (the idle pool still spins while the other runs: identical models then
looked 5 % apart in 16-29 % of trials, against 2 % with blocks). A pause before each block lets spinning workers go to
sleep, and two discarded runs wake those of the subject. Random order, because a fixed one turns any trend into a bias.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.machine.description import describe_machine
from bench.timing.samples import Samples
from runtimes.errors import UsageError

Subject = Callable[[], object]

# Warm-up ends when the median of the last this many runs is within the share of that of as many before them.
_WINDOW_RUNS = 5
_STABLE_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurePlan:
    """How long and how often.

    Attributes:
        blocks: Blocks for each subject, which is the number of rounds.
        block_seconds: What a block should take; its runs follow from the subject's speed within the two limits.
        min_runs: Fewest runs of a block.
        max_runs: Most runs of a block.
        pause_s: Pause before each block.
        discard: Runs at the start of each block that are not kept.
        warmup_seconds: Longest warm-up of a subject.
        min_warmup: Runs that it has whatever they take.
        seed: Of the order within rounds.
        time_budget_s: No round is begun after this; the first always is.
    """

    blocks: int = 15
    block_seconds: float = 0.25
    min_runs: int = 3
    max_runs: int = 30
    pause_s: float = 0.03
    discard: int = 2
    warmup_seconds: float = 1.0
    min_warmup: int = 3
    seed: int = 0
    time_budget_s: float | None = None

    def __post_init__(self) -> None:
        if min(self.blocks, self.min_warmup) < 1 or not 1 <= self.min_runs <= self.max_runs:
            raise UsageError(
                f"a plan of {self.blocks} blocks with {self.min_runs} to {self.max_runs} runs measures nothing",
                cure="use at least one block, one run and one run of warm-up",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What tells and passes time: ``now_ns`` in nanoseconds, ``sleep`` in seconds. Tests put their own."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


def measure_interleaved(
    subjects: Mapping[str, Subject],
    plan: MeasurePlan,
    *,
    clock: Clock | None = None,
    is_enough: Callable[[Mapping[str, Samples]], bool] | None = None,
    on_round: Callable[[int, int], None] | None = None,
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Samples]:
    """Measure all subjects in one interleaved run.

    Args:
        subjects: What to time, by name; each call is one run.
        plan: How long and how often.
        clock: Where the time comes from.
        is_enough: Asked after each round with everything so far; True ends the measurement. Let it look at the width
            of a bound and never at the verdict: stopping when the answer pleases makes the answer worthless.
        on_round: Told after each round how many are done and how many are planned.
        machine: What to note as the machine; by default :func:`bench.machine.description.describe_machine` before the
            first run.

    Returns:
        Samples by name, all with the same number of blocks; block ``i`` of each was measured in round ``i``.

    Raises:
        UsageError: there are no subjects. What a subject raises passes through.
    """
    if not subjects:
        raise UsageError("there is nothing to measure", cure="give at least one subject")
    clock = clock or Clock()
    noted = dict(machine) if machine is not None else describe_machine()
    start_ns = clock.now_ns()
    warmups = {name: warm_up(subject, plan, clock) for name, subject in subjects.items()}
    runs = {name: choose_runs(warmup, plan) for name, warmup in warmups.items()}
    blocks: dict[str, list[tuple[int, ...]]] = {name: [] for name in subjects}
    order = random.Random(plan.seed)
    for number in range(plan.blocks):
        for name in order.sample(list(subjects), len(subjects)):
            blocks[name].append(run_block(subjects[name], runs[name], plan, clock))
        if on_round is not None:
            on_round(number + 1, plan.blocks)
        measured = _collect(blocks, warmups, noted)
        if is_enough is not None and is_enough(measured):
            return measured
        if plan.time_budget_s is not None and clock.now_ns() - start_ns >= plan.time_budget_s * 1e9:
            return measured
    return _collect(blocks, warmups, noted)


def warm_up(subject: Subject, plan: MeasurePlan, clock: Clock) -> tuple[int, ...]:
    """Run until the speed is stable or the time is up, and return every run."""
    runs: list[int] = []
    end_ns = clock.now_ns() + plan.warmup_seconds * 1e9
    while len(runs) < plan.min_warmup or (not _is_stable(runs) and clock.now_ns() < end_ns):
        runs.append(_time_run(subject, clock))
    return tuple(runs)


def _is_stable(runs: list[int]) -> bool:
    if len(runs) < 2 * _WINDOW_RUNS:
        return False
    last = statistics.median(runs[-_WINDOW_RUNS:])
    before = statistics.median(runs[-2 * _WINDOW_RUNS : -_WINDOW_RUNS])
    return abs(last - before) <= _STABLE_SHARE * before


def choose_runs(warmup: Sequence[int], plan: MeasurePlan) -> int:
    """Return how many runs a block should have, from how long the last of the warm-up took."""
    wanted = int(plan.block_seconds * 1e9 / max(find_typical_ns(warmup), 1))
    return min(plan.max_runs, max(plan.min_runs, wanted))


def find_typical_ns(warmup: Sequence[int]) -> float:
    """Return how long a run takes when warm: the median of the last ones of the warm-up."""
    return statistics.median(warmup[-_WINDOW_RUNS:])


def run_block(subject: Subject, runs: int, plan: MeasurePlan, clock: Clock) -> tuple[int, ...]:
    """Pause, run and discard a few, then return the nanoseconds of each of ``runs`` runs."""
    clock.sleep(plan.pause_s)
    for _ in range(plan.discard):
        subject()
    return tuple(_time_run(subject, clock) for _ in range(runs))


def _time_run(subject: Subject, clock: Clock) -> int:
    start_ns = clock.now_ns()
    subject()
    # A clock that ticks more slowly than the subject runs must not give a duration of nothing.
    return max(1, clock.now_ns() - start_ns)


def _collect(
    blocks: Mapping[str, list[tuple[int, ...]]], warmups: Mapping[str, tuple[int, ...]], machine: Mapping[str, Any]
) -> dict[str, Samples]:
    return {
        name: Samples(label=name, ns=tuple(done), warmup_ns=warmups[name], machine=machine)
        for name, done in blocks.items()
    }
