"""Of the ways to round a decoder's weights to blocks: which need not be timed, and what is smaller still.

In: trials that were judged. Out: reasons, and one trial more. Must not import torch or onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.candidates.trial import Trial
from exporter.candidates.trials import TrialBench
from exporter.onnxruntime.block_rounding import BITS, NARROW_TABLES
from exporter.onnxruntime.candidates import CandidateSpec

Trials = Sequence[Trial[CandidateSpec]]


def shrink_tables(
    bench: TrialBench[CandidateSpec], trials: Trials, *, max_drop: float
) -> tuple[Trial[CandidateSpec], ...]:
    """Return the most accurate form of few bits once more, with the look-up by token and the head in few bits too.

    Nothing where no such form keeps the budget: what is rounded more loses more.
    """
    few = [trial for trial in trials if BITS.get(trial.spec.arithmetic, NARROW_TABLES.bits + 1) <= NARROW_TABLES.bits]
    kept = [trial for trial in few if not trial.object_to_drop(max_drop)]
    if not kept:
        return ()
    best = min(kept, key=_rank)
    return (bench.try_out(replace(best.spec, narrow_tables=True), tuning=False),)


def pass_over(trials: Trials, *, max_drop: float) -> Mapping[str, str]:
    """Return why a trial need not be timed, by its name: another is stored alike, and so as fast, and more accurate.

    Timed all the same, chance would decide which of them ships.
    """
    alike: dict[CandidateSpec, list[Trial[CandidateSpec]]] = {}
    for trial in trials:
        alike.setdefault(replace(trial.spec, rounding="rtn"), []).append(trial)
    found = {}
    for group in alike.values():
        best = min(group, key=_rank)
        for trial in group:
            if trial is not best:
                found[trial.name] = trial.object_to_drop(max_drop) or f"{best.name} is alike and more accurate"
    return found


def _rank(trial: Trial[CandidateSpec]) -> tuple[bool, float]:
    return bool(trial.judgement.fault), trial.judgement.charged
