"""Which candidate ships: timed interleaved against plain float, judged against the budget, decided by rule.

In: built and judged candidates. Out: speeds with bounds, the chosen one, and a reason for each of the others.
Must not import torch or onnx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.compare import MIN_ROUNDS, Comparison, compare
from bench.measure import MeasurePlan, measure_interleaved
from exporter.candidates import PLAIN, CandidateSpec
from exporter.judge import WORST_SHARE, Judgement
from exporter.probe_feeds import make_feeds
from exporter.report import Ratio
from runtimes.artifact import Artifact
from runtimes.errors import BudgetMissed
from runtimes.ort import OnnxRuntime, OrtOptions
from runtimes.protocol import Session

Shape = tuple[int, int]
Speeds = Mapping[str, Mapping[str, Ratio]]

# A look at everything, then a closer one at what came near the fastest. One discarded run wakes the threads.
# Six rounds are the fewest with a trustworthy bound; of one run at least, they are as many runs as four rounds of two.
SCREENING = MeasurePlan(
    blocks=MIN_ROUNDS, block_seconds=0.04, min_runs=1, discard=1, warmup_seconds=0.1, time_budget_s=15
)
FINAL = MeasurePlan(blocks=12, block_seconds=0.12, min_runs=2, discard=1, warmup_seconds=0.1, time_budget_s=12)
# Screening bounds are about this wide; what is further behind the fastest cannot win.
NEAR = 0.85
FINALISTS = 4
# Candidates this close in speed count as tied; the smaller wins.
TIE = 0.97
# And files this close in size; the more accurate wins.
SAME_SIZE = 1.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A built candidate and how it was judged."""

    spec: CandidateSpec
    artifact: Artifact
    judgement: Judgement

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How to time: shapes (batch, sequence), threads, and the vocabulary random token ids are drawn from."""

    shapes: tuple[Shape, ...]
    threads: int | None
    vocabulary: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The chosen candidate's name, a reason for each candidate, and the verdict in one sentence."""

    chosen: str
    reasons: Mapping[str, str]
    verdict: str


def time_trials(trials: Sequence[Trial], plan: TimingPlan, advance: Callable[[int], None]) -> Speeds:
    """Time all trials against the plain float one at every shape; those near the fastest are timed twice.

    Args:
        trials: Candidates, the plain float one among them.
        plan: Shapes and threads.
        advance: Called once per finished shape and pass; there are twice as many as shapes.
    """
    sessions = {trial.name: _open(trial, plan.threads) for trial in trials}
    try:
        speeds = _time_sessions(sessions, plan, SCREENING, advance)
        near = _choose_finalists(speeds)
        closer = _time_sessions({name: sessions[name] for name in (PLAIN, *near)}, plan, FINAL, advance)
    finally:
        for session in sessions.values():
            session.close()
    return {**speeds, **closer}


def geometric_mean(speed: Mapping[str, Ratio]) -> float:
    """Return the geometric mean of the ratios over the shapes."""
    return math.exp(sum(math.log(ratio.ratio) for ratio in speed.values()) / len(speed))


def decide(trials: Sequence[Trial], speeds: Speeds, *, max_drop: float, forced: bool) -> Decision:
    """Choose among timed trials.

    A candidate may win if what it drops is within ``max_drop`` (the worst sample within 1.2 times that) and no shape is
    measurably slower than plain float. The largest geometric mean of the speeds wins; within 3 % of it, the smallest
    file; within 1 % of that, the smallest drop. Where none may win, plain float ships; with a ``forced`` precision
    speed excludes nobody and plain float is not eligible.

    Raises:
        BudgetMissed: a forced precision cannot keep the budget.
    """
    reasons = {trial.name: _object(trial, speeds[trial.name], max_drop, forced=forced) for trial in trials}
    able = [trial for trial in trials if not reasons[trial.name] and not (forced and trial.spec.plain)]
    if not able:
        raise _missed(trials, max_drop)
    fastest = max(geometric_mean(speeds[trial.name]) for trial in able)
    tied = [trial for trial in able if geometric_mean(speeds[trial.name]) >= TIE * fastest]
    smallest = min(trial.artifact.size_bytes() for trial in tied)
    small = [trial for trial in tied if trial.artifact.size_bytes() <= SAME_SIZE * smallest]
    winner = min(small, key=lambda trial: trial.judgement.charged)
    gain = geometric_mean(speeds[winner.name])
    for trial in able:
        behind = fastest / geometric_mean(speeds[trial.name])
        reasons[trial.name] = (
            f"{behind:.2f} times slower than the fastest"
            if trial not in tied
            else "tied in speed, larger or less accurate"
        )
    reasons[winner.name] = "fastest within the budget" if len(tied) == 1 else "best of the fastest"
    return Decision(chosen=winner.name, reasons=reasons, verdict=_verdict(winner, gain, speeds[winner.name]))


def decide_untimed(trials: Sequence[Trial], *, max_drop: float, isa: str, precision: str) -> Decision:
    """Choose for another machine, where nothing can be timed: the first within the budget, in the order offered.

    The order is dynamic INT8, static INT8, then float: the order in which they won on the CPUs measured so far.

    Raises:
        BudgetMissed: none keeps the budget.
    """
    order = ("int8-dynamic", "int8-static", "weights-8", "weights-4", "float")
    forced = precision not in ("auto", "fp32")
    kept = [trial for trial in trials if trial.judgement.charged <= max_drop and not (forced and trial.spec.plain)]
    able = sorted(kept, key=lambda trial: (trial.spec.plain, order.index(trial.spec.arithmetic)))
    if not able:
        raise _missed(trials, max_drop)
    winner = able[0]
    reasons = {t.name: "not timed" if t in able else _over_budget(t, max_drop) for t in trials}
    reasons[winner.name] = "first within the budget; not timed"
    return Decision(
        chosen=winner.name, reasons=reasons, verdict=f"{winner.name} for {isa}: not timed, made for another machine"
    )


def _open(trial: Trial, threads: int | None) -> Session:
    options = OrtOptions(threads=threads, providers=(trial.spec.provider,))
    return OnnxRuntime(options).open(trial.artifact)


def _time_sessions(
    sessions: Mapping[str, Session], plan: TimingPlan, measure: MeasurePlan, advance: Callable[[int], None]
) -> dict[str, dict[str, Ratio]]:
    speeds: dict[str, dict[str, Ratio]] = {name: {} for name in sessions}
    for shape in plan.shapes:
        feeds = make_feeds(sessions[PLAIN].inputs, shape, vocabulary=plan.vocabulary, seed=plan.seed)
        subjects = {name: partial(session.run, feeds) for name, session in sessions.items()}
        samples = measure_interleaved(subjects, measure)
        for name in sessions:
            speeds[name][f"{shape[0]}x{shape[1]}"] = make_ratio(compare(samples[PLAIN], samples[name], seed=plan.seed))
        advance(1)
    return speeds


def make_ratio(found: Comparison) -> Ratio:
    """Return the comparison as the report holds it: 0 and infinity bound nothing, and infinity is not JSON."""
    low, high = (bound if 0 < bound < math.inf else None for bound in (found.low, found.high))
    return Ratio(ratio=found.ratio, low=low, high=high)


def _choose_finalists(speeds: Speeds) -> tuple[str, ...]:
    means = {name: geometric_mean(speed) for name, speed in speeds.items() if name != PLAIN}
    best = max(means.values(), default=0.0)
    near = sorted((name for name in means if means[name] >= NEAR * best), key=lambda name: -means[name])
    return tuple(near[:FINALISTS])


def _object(trial: Trial, speed: Mapping[str, Ratio], max_drop: float, *, forced: bool) -> str:
    """Return why a candidate may not win, or nothing."""
    if trial.judgement.charged > max_drop:
        return _over_budget(trial, max_drop)
    slower = [shape for shape, ratio in speed.items() if ratio.high is not None and ratio.high < 1]
    if slower and not forced and not trial.spec.plain:
        return f"slower than plain float at {', '.join(slower)}"
    return ""


def _over_budget(trial: Trial, max_drop: float) -> str:
    bound = max_drop if trial.judgement.charged == trial.judgement.drop else max_drop * WORST_SHARE
    return f"{trial.judgement.describe()}, more than {bound:.2%}"


def _verdict(winner: Trial, gain: float, speed: Mapping[str, Ratio]) -> str:
    if winner.spec.plain:
        return "plain float ships: nothing within the budget was faster"
    lows = [ratio.low for ratio in speed.values() if ratio.low is not None]
    bound = f"at least {min(lows):.2f} at every shape" if len(lows) == len(speed) else "timed too briefly for a bound"
    return f"{winner.name} ships: {gain:.2f} times plain float on this machine ({bound})"


def _missed(trials: Sequence[Trial], max_drop: float) -> BudgetMissed:
    best = min((trial for trial in trials if not trial.spec.plain), key=lambda trial: trial.judgement.charged)
    return BudgetMissed(
        f"no candidate keeps the drop within {max_drop:.2%}; the best, {best.name}, {best.judgement.describe()}",
        where="--max-drop",
        cure="allow a larger --max-drop, give more calibration data, or use --precision auto",
    )
