"""Judges the last entry of a history against the recent past, and finds where the level changed.

In: recordings, the oldest first. Out: a :class:`~bench.gating.verdict.GateResult` and the steps, with commit and date.
Must not import a runtime.

Every entry gives one number a shape: the subject's median time, or, where the recordings hold a reference beside it,
its ratio to the reference, so that the moods of the machine cancel. Only entries of the machine (and of the reference)
of the last one count, the newest thirty. If there is a step (:func:`bench.gating.steps.find_steps`), the level since
the last one is judged against the level before it; else the last entry against all others. One entry is never called
slower: a second one, of the same commit or the next, must confirm it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median, median_low

import numpy as np
from numpy.typing import NDArray

from bench.gating.files import Side, make_side
from bench.gating.rule import JUDGED_FIGURES, GateLimits, apply_rule, decide, judge_figures
from bench.gating.series import Series, choose_label, collect_series, find_subject, is_comparable, is_relative
from bench.gating.steps import MIN_ENTRIES, Step, estimate_noise, find_steps
from bench.gating.verdict import GateResult, ShapeVerdict
from bench.recordings.recording import Figures, Recording
from bench.timing.compare import Verdict
from runtimes.errors import Inconclusive

_Vector = NDArray[np.float64]

# The recent past: two weeks of two commits a working day and more, few enough that a step of long ago is history.
WINDOW = 30
# The median of normal values spreads this much more than their mean.
_MEDIAN_SPREAD = math.sqrt(math.pi / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStep:
    """The first entry of a new level: ``ratio`` is the old level over the new one (below 1, it became slower).

    ``started`` and ``commit`` are of that entry, ``before`` and ``after`` count the entries of the two levels.
    """

    shape: str
    started: str
    commit: str | None
    ratio: float
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryJudgement:
    """The gate's answer and every step of the recent past, the oldest first."""

    result: GateResult
    steps: tuple[FoundStep, ...]


def judge_history(
    history: Sequence[Recording], limits: GateLimits, *, label: str | None = None, place: str = "history"
) -> HistoryJudgement:
    """Judge the last entry.

    Simulated with 8 to 30 entries and a limit of 5 %. Without a step, "slower" was the answer in 0 of 3600 series with
    normal or heavy-tailed noise of 1-2 %, and in 0.7-1.7 % where every tenth entry fell into a slow phase of +15 %.
    With noise of 1 %, a step of 10 % was called slower in 91 % after two entries and in 98 % after three, one of 5 % in
    44 % after five; with 2 %, one of 10 % in 38, 61 and 79 % after two, three and five. The rest was inconclusive: a
    step of 5 % was called "same" in at most 2 %.

    Args:
        history: The entries, the oldest first.
        limits: What the last entry is held to; the confidence is shared between the shapes (Bonferroni).
        label: The subject; None takes the only one, or of two the one that is not the reference.
        place: What messages call the history.

    Raises:
        UsageError: the last entry holds several subjects and none is named, or not the one that is.
        SubjectFailed: the subject failed in the last entry.
        Inconclusive: no earlier entry is comparable.
    """
    last = history[-1]
    side = make_side(last, label or choose_label(last, place), place=f"{place}:{len(history)}")
    comparable = [entry for entry in history if is_comparable(entry, side)]
    entries = comparable[-WINDOW:]
    if len(entries) < 2:
        raise Inconclusive(
            f"no earlier entry is comparable with the last one: {len(history) - 1} earlier, of other machines, "
            "subjects or references",
            where=place,
            cure="add to the history on one machine, beside the same reference: `stepdown bench --history`",
        )
    confidence = 1 - (1 - limits.confidence) / max(1, len(side.shapes()))
    series = [collect_series(entries, side, shape) for shape in side.shapes()]
    found = [(one, find_steps(one.values)) for one in series]
    shapes = tuple(_judge_series(one, steps, limits, confidence) for one, steps in found)
    steps = tuple(_locate(one, step) for one, steps in found for step in steps)
    result = GateResult(
        base=f"the {len(entries) - 1} entries before",
        head=f"{side.label} of {last.commit[:12] if last.commit else last.started}",
        verdict=decide(shapes),
        max_regression=limits.max_regression,
        confidence=limits.confidence,
        interleaved=False,
        shapes=shapes,
        figures=judge_figures(_typical_figures(entries[:-1], side.label), side.subject.figures, limits),
        notes=(
            *map(describe_step, steps),
            *_note_no_step(found),
            *_note_single(found, shapes),
            *_note_entries(history, comparable, entries, side),
        ),
    )
    return HistoryJudgement(result=result, steps=steps)


def _typical_figures(entries: Sequence[Recording], label: str) -> Figures:
    """Return the median of each figure: against the entry before alone, a model that grew would fail only once."""
    figures = [find_subject(entry, label).figures for entry in entries]
    known = {name: [value for one in figures if (value := getattr(one, name)) is not None] for name in JUDGED_FIGURES}
    return Figures(**{name: median_low(values) for name, values in known.items() if values})


def describe_step(step: FoundStep) -> str:
    """Say it in a sentence: shape, effect, commit, date."""
    change = 1 / step.ratio - 1
    return (
        f"{step.shape}: {abs(change):.1%} {'slower' if change > 0 else 'faster'} since "
        f"{step.commit[:12] if step.commit else 'an entry without commit'} ({step.started}); "
        f"{step.before} entries before it, {step.after} since"
    )


def _judge_series(series: Series, steps: Sequence[Step], limits: GateLimits, confidence: float) -> ShapeVerdict:
    start = steps[-1].index if steps else len(series.values) - 1
    first = start - steps[-1].before if steps else 0
    logs: _Vector = np.log(np.asarray(series.values))
    before, after = logs[first:start], logs[start:]
    center = float(np.median(before) - np.median(after)) if len(before) else 0.0
    reach = _reach(logs, len(before), len(after), confidence)
    return ShapeVerdict(
        shape=series.shape,
        verdict=_judge(center - reach, center + reach, limits, is_confirmed=len(after) > 1),
        ratio=math.exp(center),
        low=math.exp(center - reach),
        high=math.exp(center + reach),
        rounds=len(logs),
        base_ns=median(series.times_ns[first:start] or series.times_ns),
        head_ns=median(series.times_ns[start:]),
    )


def _reach(logs: _Vector, before: int, after: int, confidence: float) -> float:
    """Return how far the bound of a difference of two levels reaches to either side; open with too few entries.

    Normal quantiles of a robust estimate of the noise: :func:`bench.gating.steps.estimate_noise` widens it for few
    entries.
    """
    if len(logs) < MIN_ENTRIES:
        return math.inf
    spread = math.hypot(*(1.0 if n == 1 else _MEDIAN_SPREAD / math.sqrt(n) for n in (before, after)))
    return NormalDist().inv_cdf(0.5 + confidence / 2) * estimate_noise(logs) * spread


def _judge(low: float, high: float, limits: GateLimits, *, is_confirmed: bool) -> Verdict:
    """Apply the gate's rule to a bound on the logarithm of the ratio; one entry alone excludes nothing."""
    half = math.log1p(limits.max_regression / 2)
    return apply_rule(
        (low, high), limits, is_slower=is_confirmed and high < -half, is_faster=is_confirmed and low > half
    )


def _locate(series: Series, step: Step) -> FoundStep:
    entry = series.entries[step.index]
    return FoundStep(
        shape=series.shape,
        started=entry.started,
        commit=entry.commit,
        ratio=step.ratio,
        before=step.before,
        after=step.after,
    )


def _note_no_step(found: Sequence[tuple[Series, Sequence[Step]]]) -> list[str]:
    quiet = [(series.shape, len(series.values)) for series, steps in found if not steps]
    return [
        f"{shape}: no step in {count} entries"
        + ("" if count >= MIN_ENTRIES else f"; fewer than {MIN_ENTRIES} show none")
        for shape, count in quiet
    ]


def _note_single(found: Sequence[tuple[Series, Sequence[Step]]], shapes: Sequence[ShapeVerdict]) -> list[str]:
    alone = [
        shape.shape
        for (_, steps), shape in zip(found, shapes, strict=True)
        if not steps and shape.verdict == "inconclusive" and shape.high < 1
    ]
    if not alone:
        return []
    return [
        f"the last entry is slower than the median of the others at {', '.join(alone)}, but one may be an outlier: "
        "add another with `stepdown bench --history`, which confirms it or not"
    ]


def _note_entries(
    history: Sequence[Recording], comparable: Sequence[Recording], entries: Sequence[Recording], side: Side
) -> list[str]:
    notes = []
    if others := len(history) - len(comparable):
        notes.append(f"{others} entries were left out: another machine, subject or reference than the last one's")
    if older := len(comparable) - len(entries):
        notes.append(f"{older} older entries were left out: the recent past is {WINDOW}")
    if is_relative(side):
        notes.append(f"times are relative to {side.recording.subjects[0].label}, measured interleaved in every entry")
    else:
        notes.append(
            "times are not relative to anything: what the machine did between entries is in them; bench a fixed model "
            "beside this one (`--vs`) to cancel it"
        )
    return [*notes, *(f"unstable (last entry): {why}" for why in side.recording.conditions.unstable)]
