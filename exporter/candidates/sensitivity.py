"""Which layers hurt, measured: quantise one group of linears at a time, judge, and leave the worst in float.

In: a candidate over the budget. Out: the smallest set of layers to leave in float so that the drop holds.
A group is the linears over one activation (query, key and value): they are quantised together or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporter.candidates.trial import C, Trial, Workshop

Group = tuple[str, ...]
# Parts of the budget the search aims at, one after the other.
BUDGET_SHARES = (1.0, 0.8, 0.6, 0.4)


class TryOut(Protocol[C]):
    """Builds a candidate and judges it."""

    def __call__(self, spec: C, *, tuning: bool) -> Trial[C]:
        """Judge on the tuning samples, or for the decision."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """``drop`` of the model when the linears of ``group`` alone are quantised."""

    group: Group
    drop: float


def group_linears(workshop: Workshop[C], spec: C) -> tuple[Group, ...]:
    """Return the names of the candidate's linears, grouped by the activation they read."""
    groups: dict[str, list[str]] = {}
    for linear in workshop.list_linears(spec):
        if linear.kind != "Conv":
            groups.setdefault(linear.activation, []).append(linear.node)
    return tuple(tuple(names) for names in groups.values())


def rank_groups(
    groups: Sequence[Group], spec: C, measure: Callable[[C], float], advance: Callable[[int], None]
) -> tuple[Sensitivity, ...]:
    """Return the groups with the drop each causes alone, the worst first."""
    found = []
    for group in groups:
        others = tuple(name for other in groups if other != group for name in other)
        found.append(Sensitivity(group=group, drop=measure(spec.leave_in_float(others))))
        advance(1)
    return tuple(sorted(found, key=lambda item: -item.drop))


def keep_in_float(
    ranked: Sequence[Sensitivity], spec: C, measure: Callable[[C], float], *, max_drop: float
) -> C | None:
    """Return ``spec`` with the fewest of the worst groups in float that keep the drop, or None if none do.

    Bisection over the ranking: the drop falls, within noise, as more of the worst groups stay in float.
    """
    low, high = 1, len(ranked) - 1
    found: C | None = None
    while low <= high:
        count = (low + high) // 2
        tried = spec.leave_in_float(tuple(name for item in ranked[:count] for name in item.group))
        if measure(tried) <= max_drop:
            found, high = tried, count - 1
        else:
            low = count + 1
    return found


def mend(
    workshop: Workshop[C], spec: C, try_out: TryOut[C], *, max_drop: float, advance: Callable[[int], None]
) -> Trial[C] | None:
    """Return ``spec`` with the layers that hurt in float, within the budget on the judging samples too, or None.

    Layers are ranked and counted on the tuning samples. What just fits there may just miss on others, so the search is
    repeated with a part of the budget.

    Args:
        workshop: Builds candidates.
        spec: The candidate that misses the budget.
        try_out: Builds and judges a candidate, on the tuning samples or for the decision.
        max_drop: The budget.
        advance: Called with the number of groups ranked.
    """
    measured: dict[C, float] = {}

    def measure(tried: C) -> float:
        if tried not in measured:
            judgement = try_out(tried, tuning=True).judgement
            measured[tried] = math.inf if judgement.fault else judgement.charged
        return measured[tried]

    ranked = rank_groups(group_linears(workshop, spec), spec, measure, advance)
    for share in BUDGET_SHARES:
        mixed = keep_in_float(ranked, spec, measure, max_drop=max_drop * share)
        trial = try_out(mixed, tuning=False) if mixed is not None else None
        if trial is not None and not trial.object_to_drop(max_drop):
            return trial
    return None
