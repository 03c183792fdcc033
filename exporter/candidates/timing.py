"""How fast each candidate is against plain float: all of them briefly, those near the fastest again and longer.

In: trials and shapes. Out: ratios with bounds, and which candidates were timed closely enough to be chosen.
Must not import torch or onnx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain

from bench.timing.compare import MIN_ROUNDS, Comparison, compare
from bench.timing.measure import MeasurePlan, measure_interleaved
from bench.timing.samples import Samples
from exporter.candidates.trial import PLAIN, C, Trial
from exporter.probe_feeds import make_feeds, make_step_feeds
from exporter.reporting.report import Ratio
from runtimes.artifact import TensorSpec
from runtimes.protocol import Session, Tensors

Shape = tuple[int, int]
Speeds = Mapping[str, Mapping[str, Ratio]]
# By shape, then by candidate.
_Taken = Mapping[str, Mapping[str, Samples]]

# A look at everything, then a closer one at what came near the fastest. One discarded run wakes the threads. Within its
# time the screening has as many short rounds as a bound needs.
SCREENING = MeasurePlan(
    blocks=MIN_ROUNDS, block_seconds=0.04, min_runs=1, discard=1, warmup_seconds=0.1, min_warmup=1, time_budget_s=6
)
FINAL = MeasurePlan(
    blocks=12, block_seconds=0.12, min_runs=1, discard=1, warmup_seconds=0.1, min_warmup=1, time_budget_s=9
)
# Screening bounds are about this wide; what is further behind the fastest cannot win.
NEAR = 0.85
FINALISTS = 4
# A bound that reaches no further, either way together, tells no more by more rounds: what is as close is tied.
_NARROW = 1.04
# One that nothing competes with but plain float: by how much it is faster need not be known more closely.
_CLEAR = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How to time: shapes (batch, sequence), and the vocabulary random token ids are drawn from.

    A decoder is also timed on one token behind each of ``contexts`` tokens.
    """

    shapes: tuple[Shape, ...]
    vocabulary: int
    seed: int
    contexts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.shapes) + len(self.contexts)

    def names(self) -> tuple[str, ...]:
        """Return what everything that is timed is called: ``8x128``, and ``1x1+1024`` behind 1,024 tokens."""
        whole = tuple(f"{batch}x{length}" for batch, length in self.shapes)
        return whole + tuple(f"1x1+{past}" for past in self.contexts)

    def feed(self, inputs: Sequence[TensorSpec]) -> Iterator[tuple[str, Tensors]]:
        """Yield (name, feeds) of everything that is timed."""
        whole = (make_feeds(inputs, shape, vocabulary=self.vocabulary, seed=self.seed) for shape in self.shapes)
        steps = (make_step_feeds(inputs, past, vocabulary=self.vocabulary, seed=self.seed) for past in self.contexts)
        yield from zip(self.names(), chain(whole, steps), strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """``speeds`` of every candidate by shape; the ``finalists`` (plain float among them) were timed closely.

    ``twins`` has the same of each sparse finalist against its dense twin, where that is within the budget.
    """

    speeds: Speeds
    finalists: tuple[str, ...]
    twins: Speeds = field(default_factory=dict)


def time_trials(
    trials: Sequence[Trial[C]],
    plan: TimingPlan,
    open_trial: Callable[[Trial[C]], Session],
    advance: Callable[[int], None],
    *,
    max_drop: float,
) -> Timing:
    """Time all trials against the plain float one at every shape; those that may win, and their twins, are timed twice.

    Args:
        trials: Candidates, the plain float one among them.
        plan: Shapes.
        open_trial: Opens a trial's artifact in the runtime it is for.
        advance: Called once per finished shape and pass; twice as many as shapes are counted.
        max_drop: The budget: what misses it is screened for the table, and not timed again.
    """
    able = [trial for trial in trials if not trial.spec.plain and not trial.object_to_drop(max_drop)]
    twins = _pair_twins(able)
    with ExitStack() as stack:
        sessions = {trial.name: stack.enter_context(closing(open_trial(trial))) for trial in trials}
        # A single one that may win is in the last round whatever a look at it tells.
        speeds: dict[str, dict[str, Ratio]] = {}
        near: tuple[str, ...] = tuple(trial.name for trial in able)
        if len(trials) > 2 or not able:
            screened = _time_sessions(sessions, plan, SCREENING, advance)
            speeds = _find_speeds(screened, dict.fromkeys(sessions, PLAIN), plan)
            near = _choose_finalists(speeds, near)
        else:
            advance(len(plan))
        paired = {name: twins[name] for name in near if name in twins}
        finalists = tuple(dict.fromkeys((PLAIN, *near, *paired.values())))
        closer = _time_sessions({name: sessions[name] for name in finalists}, plan, FINAL, advance, _is_told)
    return Timing(
        speeds={**speeds, **_find_speeds(closer, dict.fromkeys(finalists, PLAIN), plan)},
        finalists=finalists,
        twins=_find_speeds(closer, paired, plan),
    )


def geometric_mean(speed: Mapping[str, Ratio]) -> float:
    """Return the geometric mean of the ratios over the shapes."""
    return math.exp(sum(math.log(ratio.ratio) for ratio in speed.values()) / len(speed))


def make_ratio(found: Comparison) -> Ratio:
    """Return the comparison as the report holds it: 0 and infinity bound nothing, and infinity is not JSON."""
    low, high = (bound if 0 < bound < math.inf else None for bound in (found.low, found.high))
    return Ratio(ratio=found.ratio, low=low, high=high)


def _pair_twins(able: Sequence[Trial[C]]) -> Mapping[str, str]:
    """Return the name of the dense twin of each sparse candidate that has one among ``able``."""
    names = {trial.name for trial in able}
    twins = {trial.name: trial.spec.dense_twin for trial in able}
    return {name: twin.name for name, twin in twins.items() if twin is not None and twin.name in names}


def _time_sessions(
    sessions: Mapping[str, Session],
    plan: TimingPlan,
    measure: MeasurePlan,
    advance: Callable[[int], None],
    is_enough: Callable[[Mapping[str, Samples]], bool] | None = None,
) -> _Taken:
    taken: dict[str, Mapping[str, Samples]] = {}
    for name, feeds in plan.feed(sessions[PLAIN].inputs):
        # As `bench` times them: on a GPU, what serves replays a recorded run.
        subjects = {trial: one.prepare(feeds) for trial, one in sessions.items()}
        taken[name] = measure_interleaved(subjects, measure, is_enough=is_enough)
        advance(1)
    return taken


def _find_speeds(taken: _Taken, bases: Mapping[str, str], plan: TimingPlan) -> dict[str, dict[str, Ratio]]:
    """Return the ratios of each candidate in ``bases`` to the one named there, by shape."""
    return {
        name: {
            shape: make_ratio(compare(samples[base], samples[name], seed=plan.seed)) for shape, samples in taken.items()
        }
        for name, base in bases.items()
    }


def _is_told(measured: Mapping[str, Samples]) -> bool:
    """Whether the ratio of each to plain float is bound closely, or the only one's is clear."""
    plain, others = measured[PLAIN], [samples for name, samples in measured.items() if name != PLAIN]
    if len(plain.ns) < MIN_ROUNDS:
        return False
    found = [compare(plain, samples) for samples in others]
    return all(one.high <= _NARROW * one.low for one in found) or (len(found) == 1 and found[0].low >= _CLEAR)


def _choose_finalists(speeds: Speeds, able: Sequence[str]) -> tuple[str, ...]:
    means = {name: geometric_mean(speeds[name]) for name in able}
    best = max(means.values(), default=0.0)
    near = sorted((name for name in means if means[name] >= NEAR * best), key=lambda name: -means[name])
    return tuple(near[:FINALISTS])
