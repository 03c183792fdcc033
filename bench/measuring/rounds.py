"""Times subjects in processes of their own, in rounds in which every model is opened anew.

In: subjects, and the feeds of each shape. Out: raw timings of every subject and shape, interleaved.
Must not import a runtime.

Three things make two equal models look different. This is what is done about each; bench/suites/interleaving.py
measures it.

- **Where a session's memory happens to lie** makes it up to 1.4 % faster or slower for as long as it lives, which no
  number of runs averages out. Every round opens every model anew; every few rounds start the processes anew as well.
- **Threads of the others.** An idle thread pool spins on for a while and takes the processor from whose turn it is.
  Every subject is stopped while it is not its turn.
- **Phases of the machine**, of 50 to 200 ms and some 15 %. A block of runs in one piece falls into one or does not. So
  the subjects take turns of some 10 ms, in random order, and a block is what one gave in all turns of a round.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.processes.worker_process import TIMEOUT_S
from bench.recordings.recording import Timing
from bench.subjects.process import Opened, SubjectProcess
from bench.subjects.subject import SubjectSpec
from bench.timing.measure import MeasurePlan, choose_runs, find_typical_ns
from bench.timing.samples import Samples
from runtimes.errors import StepdownError, UsageError

# What takes longer to start is started once: a compiler's minute in every round would leave no time to measure.
SLOW_START_S = 5.0
# Twenty runs of a 5 ms model in ten turns; one run wakes it for each. Stopped, the other needs no pause.
ROUND_PLAN = MeasurePlan(
    blocks=400, block_seconds=0.1, min_runs=4, max_runs=30, pause_s=0.0, discard=1, warmup_seconds=0.3
)
_ROUNDS_PER_PROCESS = 4
# A block is given in at most so many turns; the slowest subject, which makes the fewest runs, may set fewer.
_TURNS = 10
# And in turns of at least so long: the first runs after a change find the caches full of what the other left. At 1 ms a
# run, turns of two make it 4 to 5 % slower, turns of ten less than 1 % (bench/suites/gate_overhead.py).
_TURN_NS = 9e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the rounds gave: ``timings`` in the order of subjects within shapes, what opening told, what failed."""

    timings: tuple[Timing, ...]
    opened: Mapping[str, Opened]
    failures: Mapping[str, StepdownError]


@dataclass(slots=True)
class _Subject:
    """What is known of one subject while measuring; ``process`` stays alive between rounds if starting is slow."""

    spec: SubjectSpec
    process: SubjectProcess | None = None
    opened: Opened | None = None
    failure: StepdownError | None = None
    is_slow: bool = False
    runs: dict[str, int] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    warmups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    blocks: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)


def measure_rounds(
    specs: Sequence[SubjectSpec],
    feeds: Mapping[str, Path],
    plan: MeasurePlan,
    *,
    is_enough: Callable[[Measured], bool] | None = None,
    on_round: Callable[[int, int], None] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Measured:
    """Measure all subjects at all shapes.

    Args:
        specs: What to measure; labels are unique.
        feeds: By shape, the ``.npz`` file with the inputs.
        plan: How long and how often; ``blocks`` is the number of rounds.
        is_enough: Asked after each round with everything so far; True ends. Let it look at the width of a bound and
            never at the verdict: stopping when the answer pleases makes the answer worthless.
        on_round: Told after each round how many are done and how many are planned.
        timeout_s: Longest wait for one answer of a subject.

    Returns:
        The timings, all of one shape with the same number of blocks. A subject that failed has no timings and is
        among the failures; the others go on without it.

    Raises:
        UsageError: there are no subjects or shapes, or two labels are equal.
    """
    if not specs or not feeds:
        raise UsageError("there is nothing to measure", cure="give at least one subject and one shape")
    if len({spec.label for spec in specs}) < len(specs):
        raise UsageError("two subjects have the same label", cure="name them apart, LABEL=PATH")
    subjects = [_Subject(spec=spec) for spec in specs]
    order = random.Random(plan.seed)
    start_s = time.monotonic()
    with ExitStack() as stack:
        done = 0
        while True:
            _open_anew(subjects, timeout_s, order, stack)
            _run_round(subjects, feeds, plan, order)
            done += 1
            if done % _ROUNDS_PER_PROCESS == 0:
                _end_processes(subjects)
            if on_round is not None:
                on_round(done, plan.blocks)
            measured = _collect(subjects, feeds)
            # One more round takes about as long as those before.
            next_end_s = (time.monotonic() - start_s) * (1 + 1 / done)
            out_of_time = plan.time_budget_s is not None and next_end_s > plan.time_budget_s
            is_over = done == plan.blocks or out_of_time or not measured.timings
            if is_over or (is_enough is not None and is_enough(measured)):
                return measured


def _open_anew(subjects: Sequence[_Subject], timeout_s: float, order: random.Random, stack: ExitStack) -> None:
    """Start the processes that do not run, side by side, and open every model that is quick to open.

    In random order, so that what one leaves behind in memory and caches meets all alike.
    """
    able = [subject for subject in order.sample(list(subjects), len(subjects)) if subject.failure is None]
    for subject in able:
        if subject.process is None:
            subject.process = stack.enter_context(SubjectProcess(subject.spec, timeout_s=timeout_s))
    for subject in able:
        if not subject.is_slow:
            # From its own turn: those after a slow one are not slow themselves.
            begin_s = time.monotonic()
            _attempt(subject, _open)
            # A compiler works in the first run, not when the model is opened.
            compiles = subject.spec.runtime == "torch-compile"
            subject.is_slow = compiles or time.monotonic() - begin_s > SLOW_START_S


def _open(subject: _Subject) -> None:
    assert subject.process is not None
    told = subject.process.open()
    # The first time is kept: memory that a second session reuses does not count again.
    subject.opened = subject.opened or told


def _run_round(
    subjects: Sequence[_Subject], feeds: Mapping[str, Path], plan: MeasurePlan, order: random.Random
) -> None:
    """Take one block of each subject at each shape, in turns."""
    for shape in order.sample(list(feeds), len(feeds)):
        for subject in order.sample(list(subjects), len(subjects)):
            _attempt(subject, partial(_warm_up, shape=shape, feeds=feeds[shape], plan=plan))
        for subject in subjects:
            subject.blocks.setdefault(shape, []).append(())
        turns = min((one.turns[shape] for one in subjects if one.failure is None), default=0)
        for turns_left in range(turns, 0, -1):
            for subject in order.sample(list(subjects), len(subjects)):
                _attempt(subject, partial(_take_turn, shape=shape, turns_left=turns_left, plan=plan))


def _end_processes(subjects: Sequence[_Subject]) -> None:
    for subject in subjects:
        if subject.process is not None and not subject.is_slow:
            subject.process.close()
            subject.process = None


def _attempt(subject: _Subject, step: Callable[[_Subject], None]) -> None:
    """Do it; go on without this subject where it fails. What it gave before is not kept, since it would not pair."""
    if subject.failure is not None:
        return
    try:
        step(subject)
    except StepdownError as error:
        subject.failure = error
        if subject.process is not None:
            subject.process.close()
            subject.process = None


def _warm_up(subject: _Subject, shape: str, feeds: Path, plan: MeasurePlan) -> None:
    assert subject.process is not None
    subject.process.prepare(feeds)
    warmup = subject.process.warm_up(plan.warmup_seconds)
    subject.warmups.setdefault(shape, warmup)
    # The same number in every round, so that every block's median is worth as much.
    runs = subject.runs.setdefault(shape, choose_runs(warmup, plan))
    subject.turns.setdefault(shape, count_turns(runs, find_typical_ns(warmup)))


def count_turns(runs: int, typical_ns: float) -> int:
    """Return in how many turns a block of ``runs`` is given: as many as are long enough."""
    return max(1, min(_TURNS, runs, int(runs * typical_ns / _TURN_NS)))


def _take_turn(subject: _Subject, shape: str, turns_left: int, plan: MeasurePlan) -> None:
    """Run an even share of what is left of the block."""
    assert subject.process is not None
    block = subject.blocks[shape]
    runs = math.ceil((subject.runs[shape] - len(block[-1])) / turns_left)
    block[-1] += subject.process.run_block(runs, discard=plan.discard, pause_s=plan.pause_s)


def _collect(subjects: Sequence[_Subject], feeds: Mapping[str, Path]) -> Measured:
    able = [subject for subject in subjects if subject.failure is None]
    return Measured(
        timings=tuple(
            Timing(
                label=subject.spec.label,
                shape=shape,
                ns=tuple(subject.blocks[shape]),
                warmup_ns=subject.warmups[shape],
            )
            for shape in feeds
            for subject in able
        ),
        opened={subject.spec.label: subject.opened for subject in subjects if subject.opened is not None},
        failures={subject.spec.label: subject.failure for subject in subjects if subject.failure is not None},
    )


def pair_timings(timings: tuple[Timing, ...], base: str, head: str) -> dict[str, tuple[Samples, Samples]]:
    """Return the samples of base and head by shape, for the shapes that both have."""
    found: dict[tuple[str, str], Samples] = {
        (one.label, one.shape): Samples(label=one.label, ns=one.ns, warmup_ns=one.warmup_ns, machine={})
        for one in timings
    }
    shapes = dict.fromkeys(one.shape for one in timings)
    return {s: (found[base, s], found[head, s]) for s in shapes if (base, s) in found and (head, s) in found}
