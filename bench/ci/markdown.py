"""A gate's answer as Markdown: for a job's summary or a comment. In: a result or an error. Out: text."""

from __future__ import annotations

import re

from bench.ci.findings import FIGURE_NAMES, format_bound, format_change, format_figure, name_answer
from bench.gating.verdict import GateResult
from bench.report.units import format_duration, make_printable
from bench.table import render_markdown as render_table
from runtimes.errors import StepdownError

# Every sign that Markdown or HTML may read as more than itself. A minus, a dot or a bracket in a table cell is none.
_ACTIVE = re.compile(r"([\\`*_{}\[\]<>&#|~@!])")


def render_markdown(result: GateResult) -> str:
    """Return a heading with the verdict, a table of times, a table of figures, and the notes."""
    head, base = escape_markdown(result.head), escape_markdown(result.base)
    parts = [
        f"### stepdown gate: {name_answer(result)}",
        f"{head} against {base}; a slowdown of {result.max_regression:.1%} must not pass, "
        f"bounds at {result.confidence:.0%}.",
        render_table(
            ("shape", "base", "head", "change", "bound", "rounds", "verdict"),
            [
                (
                    escape_markdown(one.shape),
                    format_duration(one.base_ns),
                    format_duration(one.head_ns),
                    format_change(one.ratio),
                    format_bound(one),
                    str(one.rounds),
                    one.verdict,
                )
                for one in result.shapes
            ],
        ),
    ]
    if result.figures:
        parts.append(_tabulate_figures(result))
    for title, lines in (("The machines differ", result.differences), ("Notes", result.notes)):
        if lines:
            parts.append("\n".join([f"**{title}**", "", *(f"- {escape_markdown(line)}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def render_markdown_error(error: StepdownError) -> str:
    """Return a heading and the message of a gate that could not judge."""
    lines = [escape_markdown(line.strip()) for line in str(error).splitlines()]
    return "\n\n".join([f"### stepdown gate: {type(error).__name__}", *lines]) + "\n"


def escape_markdown(text: str) -> str:
    """Return text on one line in which no sign acts: labels come from users."""
    return _ACTIVE.sub(r"\\\1", make_printable(" ".join(text.split())))


def _tabulate_figures(result: GateResult) -> str:
    rows = [
        (
            FIGURE_NAMES.get(one.name, one.name),
            format_figure(one.name, one.base),
            format_figure(one.name, one.head),
            f"{one.change:+.1%}",
            f"{one.allowed:+.1%}",
            "ok" if one.ok else "too large",
        )
        for one in result.figures
    ]
    return render_table(("figure", "base", "head", "change", "allowed", "verdict"), rows)
