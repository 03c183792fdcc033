"""The gate's answer taken apart: one finding for each shape and each figure, in words.

In: a :class:`~bench.gating.verdict.GateResult`, or the error that kept the gate from one. Out: :class:`Finding`, which
terminal, JUnit and annotations are made from. Must not import anything heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.gating.verdict import FigureVerdict, GateResult, ShapeVerdict
from bench.report.units import format_bytes, format_duration
from runtimes.errors import Inconclusive, StepdownError

Status = Literal["passed", "failed", "undecided", "error"]

FIGURE_NAMES = {
    "size_bytes": "size",
    "nodes": "nodes",
    "parameters": "parameters",
    "load_memory_bytes": "memory after loading",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``name`` is the shape or the figure, ``message`` one sentence about it."""

    name: str
    status: Status
    message: str


def list_findings(result: GateResult) -> tuple[Finding, ...]:
    """Return a finding for each shape, then for each figure."""
    return (*map(_describe_shape, result.shapes), *map(_describe_figure, result.figures))


def describe_error(error: StepdownError) -> Finding:
    """Return the one finding of a gate that could not judge."""
    status: Status = "undecided" if isinstance(error, Inconclusive) else "error"
    return Finding(name=type(error).__name__, status=status, message=str(error))


def summarise(result: GateResult) -> str:
    """Return the answer in one line: the verdict, and what decided it."""
    findings = list_findings(result)
    decisive = [one for one in findings if one.status == "failed"] or [
        one for one in findings if one.status != "passed"
    ]
    if result.passes:
        return f"{result.verdict}: {result.head} against {result.base}"
    return "; ".join(f"{one.name}: {one.message}" for one in decisive)


def name_answer(result: GateResult) -> str:
    """Return the verdict of time, and what figures add to it."""
    if all(figure.ok for figure in result.figures):
        return result.verdict
    return f"{result.verdict} {'and' if result.verdict == 'slower' else 'but'} larger"


def _describe_shape(shape: ShapeVerdict) -> Finding:
    statuses: dict[str, Status] = {"slower": "failed", "inconclusive": "undecided"}
    return Finding(
        name=shape.shape,
        status=statuses.get(shape.verdict, "passed"),
        message=(
            f"{shape.verdict}: {format_duration(shape.base_ns)} -> {format_duration(shape.head_ns)}, "
            f"{format_change(shape.ratio)} (bound {format_bound(shape)}, {shape.rounds} rounds)"
        ),
    )


def _describe_figure(figure: FigureVerdict) -> Finding:
    base, head = (format_figure(figure.name, value) for value in (figure.base, figure.head))
    allowed = f"at most {figure.allowed:+.1%} allowed" if figure.allowed else "no growth allowed"
    return Finding(
        name=FIGURE_NAMES.get(figure.name, figure.name),
        status="passed" if figure.ok else "failed",
        message=f"{'within' if figure.ok else 'above'} the limit: {base} -> {head}, {figure.change:+.1%} ({allowed})",
    )


def format_change(ratio: float) -> str:
    """Return what a ratio (base time over head time) means for head's time, as ``+12.1%``; ``open`` where unknown."""
    if ratio <= 0 or not math.isfinite(ratio):
        return "open"
    return f"{1 / ratio - 1:+.1%}"


def format_bound(shape: ShapeVerdict) -> str:
    """Return both ends of the bound on head's change of time, the faster end first."""
    return f"{format_change(shape.high)} to {format_change(shape.low)}"


def format_figure(name: str, value: int) -> str:
    """Return a figure with its unit."""
    return format_bytes(value) if name.endswith("_bytes") else f"{value:,}"
