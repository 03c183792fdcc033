"""How fast decoders generate: time to the first token, time of each after it, and memory, by context and streams.

In: what generates (:class:`~bench.generation.subject.GenerationSpec`) and prompts. Out: raw nanoseconds of every token.
Every model runs in a process of its own that is stopped while it is not its turn; in each round every model has one
turn, in random order, so that drift of the machine meets all of them. Must not import a runtime.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench.generation.process import GenerationProcess, Held, Rows
from bench.generation.subject import GenerationSpec
from bench.machine.description import describe_machine
from bench.processes.worker_process import TIMEOUT_S
from bench.timing.compare import Comparison, compare
from bench.timing.samples import Samples
from runtimes.errors import UsageError

#: Gives prompts of so many streams and so many tokens.
Prompts = Callable[[int, int], Rows]

_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationShape:
    """``context`` tokens are read by each of ``streams`` sequences before the tokens that are timed."""

    context: int
    streams: int

    def __str__(self) -> str:
        return f"{self.streams} x {self.context}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPlan:
    """What is measured and how often.

    Attributes:
        shapes: Measured one after the other.
        new_tokens: Timed in each turn, the first included.
        rounds: Turns of each model at each shape.
        seed: Of the order within rounds.
        time_budget_s: Each shape has an equal share of it: past that it begins no round, but always the first.
        timeout_s: How long a model may take over one turn.
    """

    shapes: tuple[GenerationShape, ...]
    new_tokens: int = 32
    rounds: int = 7
    seed: int = 0
    time_budget_s: float | None = None
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        sizes = (self.rounds, self.new_tokens - 1, *(min(one.context, one.streams) for one in self.shapes))
        if not self.shapes or min(sizes) < 1:
            raise UsageError(
                "this measures nothing", where="generation", cure="give a context, a round and two new tokens at least"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationTimes:
    """One model at one shape.

    Attributes:
        first: A run is the time to the first token of all streams, a block a round.
        step: A run is the time of one token of all streams, a block a round.
        held_bytes: Memory held with the cache of the shape, without what was held before the first run.
        tokens: What was generated in the last round [streams][new tokens].
    """

    first: Samples
    step: Samples
    held_bytes: int
    tokens: tuple[tuple[int, ...], ...]

    def tokens_per_second(self, shape: GenerationShape) -> float:
        """Return how many tokens a second all streams make together, once each has its first."""
        return shape.streams * 1e9 / self.step.median_ns()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecording:
    """Everything of one run: ``times`` by shape and label, ``loaded`` and ``peak_bytes`` by label."""

    times: Mapping[GenerationShape, Mapping[str, GenerationTimes]]
    loaded_bytes: Mapping[str, int]
    peak_bytes: Mapping[str, int]
    machine: Mapping[str, Any]

    def compare_steps(self, shape: GenerationShape, base: str, head: str) -> Comparison:
        """Return how much faster ``head`` makes a token than ``base``."""
        return compare(self.times[shape][base].step, self.times[shape][head].step)

    def compare_first(self, shape: GenerationShape, base: str, head: str) -> Comparison:
        """Return how much sooner the first token of ``head`` is there than that of ``base``."""
        return compare(self.times[shape][base].first, self.times[shape][head].first)


def measure_generation(
    specs: Sequence[GenerationSpec],
    prompts: Prompts,
    plan: GenerationPlan,
    *,
    on_round: Callable[[GenerationShape, int], None] | None = None,
) -> GenerationRecording:
    """Measure all models in one interleaved run.

    Args:
        specs: What generates; labels differ.
        prompts: Asked once for each shape; all models get the same.
        plan: What is measured and how often.
        on_round: Told the shape and how many rounds of it are done.

    Raises:
        UsageError: there is no model, or two have one label.
        SubjectFailed: a model crashed or was silent too long. What a model raises itself passes through.
    """
    labels = [spec.label for spec in specs]
    if not labels or len(set(labels)) < len(labels):
        raise UsageError(f"{labels} are no names of models to measure", cure="give each one a name of its own")
    with ExitStack() as stack:
        running = {spec.label: stack.enter_context(GenerationProcess(spec, timeout_s=plan.timeout_s)) for spec in specs}
        loaded = {label: process.open() for label, process in running.items()}
        machine = describe_machine(specs[0].threads)
        order = random.Random(plan.seed)
        times = {}
        for shape in plan.shapes:
            rows = prompts(shape.streams, shape.context)
            times[shape] = _measure_shape(running, rows, plan, order, machine, partial(_tell, on_round, shape))
        held = {label: process.memory() for label, process in running.items()}
    return GenerationRecording(
        times=times,
        loaded_bytes=loaded,
        peak_bytes={label: one.peak_bytes for label, one in held.items()},
        machine=machine,
    )


def draw_prompts(vocabulary: int, seed: int = 0) -> Prompts:
    """Return prompts of random tokens: how fast a model is does not depend on what it reads."""

    def draw(streams: int, context: int) -> Rows:
        rows: Rows = (
            np.random.default_rng((seed, streams, context)).integers(0, vocabulary, (streams, context)).tolist()
        )
        return rows

    return draw


def _measure_shape(
    running: Mapping[str, GenerationProcess],
    rows: Rows,
    plan: GenerationPlan,
    order: random.Random,
    machine: Mapping[str, Any],
    on_round: Callable[[int], None],
) -> dict[str, GenerationTimes]:
    before: dict[str, Held] = {}
    first: dict[str, list[tuple[int, ...]]] = {label: [] for label in running}
    step: dict[str, list[tuple[int, ...]]] = {label: [] for label in running}
    warm: dict[str, tuple[int, ...]] = {}
    tokens: dict[str, tuple[tuple[int, ...], ...]] = {}
    for label, process in running.items():
        # A single token behind a single one: what is held then is no cache of this shape.
        process.generate([row[:1] for row in rows[:1]], 2)
        before[label] = process.memory()
        warm[label] = process.generate(rows, _WARM_UP_TOKENS).step_ns
    deadline = time.monotonic() + (math.inf if plan.time_budget_s is None else plan.time_budget_s / len(plan.shapes))
    for number in range(plan.rounds):
        if number and time.monotonic() >= deadline:
            break
        for label in order.sample(list(running), len(running)):
            run = running[label].generate(rows, plan.new_tokens)
            first[label].append((run.first_ns,))
            step[label].append(run.step_ns)
            tokens[label] = run.tokens
        on_round(number + 1)
    return {
        label: GenerationTimes(
            first=Samples(label=label, ns=tuple(first[label]), warmup_ns=(), machine=machine),
            step=Samples(label=label, ns=tuple(step[label]), warmup_ns=warm[label], machine=machine),
            held_bytes=max(0, process.memory().resident_bytes - before[label].resident_bytes),
            tokens=tokens[label],
        )
        for label, process in running.items()
    }


def _tell(on_round: Callable[[GenerationShape, int], None] | None, shape: GenerationShape, done: int) -> None:
    if on_round is not None:
        on_round(shape, done)
