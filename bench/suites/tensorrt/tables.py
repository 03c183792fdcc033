"""The tables of the TensorRT suite. In: what was measured. Out: Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.suites.goals import Goal
from bench.suites.tensorrt.goals import Accuracy, Subject
from bench.suites.tensorrt.graphs import FLOAT, TITLES
from bench.suites.tensorrt.plans import PlanFacts
from bench.table import render_markdown

_ACCURACY = ("graph", "MB", "token cosine mean / min", "embedding cosine mean / min", "Lee", "wordsim353", "made in s")
_PLAN = ("plan", "MB", "of FP32", "built in s", "linears in int8", "attention", "Q/K/V joined", "FP16 sums")


def render_tables(subjects: Mapping[str, Subject], goals: Sequence[Goal]) -> str:
    """Return accuracy, plans, what could not be had and why, and goals."""
    plain = subjects[FLOAT].plan if FLOAT in subjects else None
    judged = [[TITLES[key], *_describe_graph(subject)] for key, subject in subjects.items()]
    built = [[TITLES[key], *_describe_plan(subject.plan, plain)] for key, subject in subjects.items()]
    parts = [render_markdown(_ACCURACY, judged), render_markdown(_PLAN, built)]
    parts += [f"{TITLES[key]}: {why}" for key, subject in subjects.items() for why in subject.why]
    if goals:
        rows = [[goal.name, goal.wanted, goal.measured, goal.verdict.upper()] for goal in goals]
        parts.append(render_markdown(["to show", "wanted", "measured", ""], rows))
    return "\n\n".join(parts)


def _describe_graph(subject: Subject) -> list[str]:
    return [_show(subject.size_bytes, 1e6), *_describe_accuracy(subject.accuracy), _show(subject.seconds)]


def _describe_accuracy(found: Accuracy | None) -> list[str]:
    if found is None:
        return ["-"] * 4
    cosines = [f"{one.mean:.4f} / {one.minimum:.4f}" for one in (found.tokens, found.texts)]
    return [*cosines, f"{found.lee:.4f}", f"{found.wordsim:.4f}"]


def _describe_plan(plan: PlanFacts | None, plain: PlanFacts | None) -> list[str]:
    if plan is None:
        return ["-"] * (len(_PLAN) - 1)
    int8 = len(plan.int8_linears)
    return [
        _show(plan.size_bytes, 1e6),
        f"{plan.size_bytes / plain.size_bytes:.3f}" if plain is not None else "-",
        _show(plan.seconds),
        f"{int8} of {int8 + len(plan.float_linears)}",
        _describe_attention(plan),
        str(plan.joined),
        str(plan.half_sums),
    ]


def _describe_attention(plan: PlanFacts) -> str:
    if plan.fused_attention:
        return f"{plan.fused_attention} fused"
    return f"{plan.int8_products} of {plan.int8_products + plan.float_products} in int8"


def _show(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.1f}"
