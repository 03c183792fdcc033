"""Which layers hurt, measured: quantise one group of linears at a time, judge, and leave the worst in float.

In: a candidate over the budget. Out: the smallest set of layers to leave in float so that the drop holds.
A group is the linears over one activation (query, key and value): they are quantised together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from calibration.linears import find_linears
from exporter.candidates import CandidateSpec, Workshop
from exporter.fuse import open_for_lowering

Group = tuple[str, ...]
# The drop of a candidate, measured on the tuning texts.
MeasureDrop = Callable[[CandidateSpec], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """``drop`` of the model when the linears of ``group`` alone are quantised."""

    group: Group
    drop: float


def group_linears(workshop: Workshop, spec: CandidateSpec) -> tuple[Group, ...]:
    """Return the names of the candidate's linears, grouped by the activation they read."""
    groups: dict[str, list[str]] = {}
    for linear in find_linears(open_for_lowering(workshop.graphs.choose(spec))):
        if linear.kind != "Conv":
            groups.setdefault(linear.activation, []).append(linear.node)
    return tuple(tuple(names) for names in groups.values())


def rank_groups(
    groups: Sequence[Group], spec: CandidateSpec, measure: MeasureDrop, advance: Callable[[int], None]
) -> tuple[Sensitivity, ...]:
    """Return the groups with the drop each causes alone, the worst first."""
    found = []
    for group in groups:
        others = tuple(name for other in groups if other != group for name in other)
        found.append(Sensitivity(group=group, drop=measure(replace(spec, float_layers=others))))
        advance(1)
    return tuple(sorted(found, key=lambda item: -item.drop))


def keep_in_float(
    ranked: Sequence[Sensitivity], spec: CandidateSpec, measure: MeasureDrop, *, max_drop: float
) -> CandidateSpec | None:
    """Return ``spec`` with the fewest of the worst groups in float that keep the drop, or None if none do.

    Bisection over the ranking: the drop falls, within noise, as more of the worst groups stay in float.
    """
    low, high = 1, len(ranked) - 1
    found: CandidateSpec | None = None
    while low <= high:
        count = (low + high) // 2
        tried = replace(spec, float_layers=tuple(name for item in ranked[:count] for name in item.group))
        if measure(tried) <= max_drop:
            found, high = tried, count - 1
        else:
            low = count + 1
    return found
