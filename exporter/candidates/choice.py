"""Which candidate ships: decided by rule from what was timed and judged.

In: trials and their timing. Out: the chosen one, and a reason for each of the others. Pure; must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.candidates.timing import Timing, geometric_mean
from exporter.candidates.trial import Candidate, Trial
from exporter.reporting.report import Ratio
from runtimes.errors import BudgetMissed

# Candidates this close in speed count as tied; the smaller wins.
TIE = 0.97
# And files this close in size; the more accurate wins.
SAME_SIZE = 1.01
# Where nothing can be timed: the order in which they won on the CPUs measured so far.
UNTIMED_ORDER = ("int8-static", "int8-dynamic", "weights-8", "weights-4", "weights-2", "float")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The chosen candidate's name, a reason for each candidate, and the verdict in one sentence."""

    chosen: str
    reasons: Mapping[str, str]
    verdict: str


def decide(trials: Sequence[Trial[Candidate]], timing: Timing, *, max_drop: float, forced: bool) -> Decision:
    """Choose among timed trials.

    A candidate may win if what it drops is within ``max_drop`` (the worst sample within 1.2 times that) and it is not
    slower than plain float: measurably at no shape, and not in the mean. A candidate with sparse layers may win if it
    is measurably slower at no shape than the same without, where that may win. The largest geometric mean of the speeds
    wins; within 3 % of it, the smallest file; within 1 % of that, the smallest drop. Where none may win, plain float
    ships; with a ``forced`` precision nobody need be as fast as plain float, which is not eligible.

    Raises:
        BudgetMissed: a forced precision cannot keep the budget.
    """
    speeds = timing.speeds
    reasons = {trial.name: _object(trial, speeds[trial.name], max_drop, forced=forced) for trial in trials}
    reasons |= _object_to_sparse(trials, timing, reasons)
    eligible = [trial for trial in trials if not reasons[trial.name] and not (forced and trial.spec.plain)]
    able = [trial for trial in eligible if trial.name in timing.finalists]
    if not able:
        raise _missed(trials, max_drop)
    fastest = max(geometric_mean(speeds[trial.name]) for trial in able)
    tied = [trial for trial in able if geometric_mean(speeds[trial.name]) >= TIE * fastest]
    smallest = min(trial.artifact.size_bytes() for trial in tied)
    small = [trial for trial in tied if trial.artifact.size_bytes() <= SAME_SIZE * smallest]
    winner = min(small, key=lambda trial: trial.judgement.charged)
    for trial in eligible:
        behind = fastest / geometric_mean(speeds[trial.name])
        reasons[trial.name] = (
            "tied in speed, larger or less accurate" if trial in tied else f"{behind:.2f} times slower than the fastest"
        )
    reasons[winner.name] = "fastest within the budget" if len(tied) == 1 else "best of the fastest"
    return Decision(chosen=winner.name, reasons=reasons, verdict=_verdict(winner, speeds[winner.name]))


def decide_untimed(trials: Sequence[Trial[Candidate]], *, max_drop: float, made_for: str, forced: bool) -> Decision:
    """Choose where nothing can be timed: the most accurate of the first arithmetic in the order.

    Args:
        trials: Candidates, the plain float one among them.
        max_drop: The budget.
        made_for: What they are for, as a part of the verdict: ``avx2: made for another machine``.
        forced: Whether plain float is not eligible.

    Raises:
        BudgetMissed: none keeps the budget.
    """
    kept = [t for t in trials if not t.object_to_drop(max_drop) and not (forced and t.spec.plain)]
    if not kept:
        raise _missed(trials, max_drop)
    winner = min(kept, key=lambda t: (t.spec.plain, UNTIMED_ORDER.index(t.spec.arithmetic), t.judgement.charged))
    reasons = {t.name: t.object_to_drop(max_drop) or "not timed" for t in trials}
    reasons[winner.name] = "first within the budget; not timed"
    return Decision(chosen=winner.name, reasons=reasons, verdict=f"{winner.name} for {made_for}, not timed")


def _object(trial: Trial[Candidate], speed: Mapping[str, Ratio], max_drop: float, *, forced: bool) -> str:
    """Return why a candidate may not win, or nothing."""
    dropped = trial.object_to_drop(max_drop)
    if dropped or forced or trial.spec.plain:
        return dropped
    slower = _list_slower(speed)
    if slower:
        return f"slower than plain float at {', '.join(slower)}"
    return "no faster than plain float" if geometric_mean(speed) < 1 else ""


def _object_to_sparse(trials: Sequence[Trial[Candidate]], timing: Timing, reasons: Mapping[str, str]) -> dict[str, str]:
    """Return why candidates may not win that lose to their dense twins, by name; a twin that may not win beats none."""
    twins = {trial.name: trial.spec.dense_twin for trial in trials if trial.name in timing.twins}
    found = {}
    for name, twin in twins.items():
        slower = _list_slower(timing.twins[name])
        if twin is not None and slower and not reasons[name] and not reasons[twin.name]:
            found[name] = f"slower than {twin.name}, its dense twin, at {', '.join(slower)}"
    return found


def _list_slower(speed: Mapping[str, Ratio]) -> list[str]:
    """Return the shapes at which something is measurably slower than what it was compared with."""
    return [shape for shape, ratio in speed.items() if ratio.high is not None and ratio.high < 1]


def _verdict(winner: Trial[Candidate], speed: Mapping[str, Ratio]) -> str:
    if winner.spec.plain:
        return "plain float ships: nothing within the budget was faster"
    lows = [ratio.low for ratio in speed.values() if ratio.low is not None]
    bound = f"at least {min(lows):.2f} at every shape" if len(lows) == len(speed) else "timed too briefly for a bound"
    return f"{winner.name} ships: {geometric_mean(speed):.2f} times plain float on this machine ({bound})"


def _missed(trials: Sequence[Trial[Candidate]], max_drop: float) -> BudgetMissed:
    best = min((trial for trial in trials if not trial.spec.plain), key=lambda trial: trial.judgement.charged)
    return BudgetMissed(
        f"no candidate keeps the drop within {max_drop:.2%}; the best, {best.name}: {best.object_to_drop(max_drop)}",
        where="--max-drop",
        cure="allow a larger --max-drop, give more calibration data, or force less (--precision, --cache-precision)",
    )
