"""The report of one bench run: one HTML file that loads nothing. In: a recording. Out: a file, or its text.

The page is a template, a style sheet and a script that only sorts tables; everything is written into the file. A
content security policy lets nothing else run or load. Must not import matplotlib or jinja2 before they are needed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from bench.gating.verdict import GateResult
from bench.recordings.recording import Recording
from bench.recordings.summary import CONFIDENCE
from bench.report.facts import list_conditions, list_facts, list_notices, list_plan, write_byline
from bench.report.headline import format_limit, write_headline
from bench.report.latency import draw_latencies
from bench.report.ledger import tabulate_ledgers
from bench.report.operators import describe_operators
from bench.report.ratios import draw_gate, draw_ratios, list_ratios
from bench.report.tables import (
    tabulate_gate,
    tabulate_gate_figures,
    tabulate_latency,
    tabulate_subjects,
    tabulate_throughput,
)
from bench.report.tradeoff import draw_tradeoffs
from bench.report.trend import describe_trend
from bench.report.units import format_share, make_printable
from runtimes.atomic import write_text
from runtimes.errors import MissingDependency


def check_report_available() -> None:
    """Say before a long measurement whether its report can be made.

    Raises:
        MissingDependency: matplotlib or jinja2 is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingDependency(
                f"a report needs {package}, which is not installed", cure='pip install "stepdown[report]"'
            )


def write_report(
    path: Path, recording: Recording, *, gate: GateResult | None = None, history: Sequence[Recording] = ()
) -> None:
    """Write the report as one HTML file, atomically.

    Args:
        path: Where to; what was there before is replaced.
        recording: The run.
        gate: The gate's answer on it, shown first.
        history: Earlier runs, oldest first, with or without this one.

    Raises:
        MissingDependency: matplotlib or jinja2 is not installed.
        DataError: blocks of one shape that do not pair.
        OutputError: no room, or no permission.
    """
    check_report_available()
    write_text(path, render_report(recording, gate=gate, history=history))


def render_report(recording: Recording, *, gate: GateResult | None = None, history: Sequence[Recording] = ()) -> str:
    """Return the page; the same arguments give the same text. See :func:`write_report`."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_read_source),
    )
    environment.filters["printable"] = make_printable
    ratios = list_ratios(recording)
    script = _read_source("sort.js")
    return environment.get_template("page.html").render(
        recording=recording,
        reference=recording.subjects[0].label,
        headline=write_headline(recording, ratios, gate),
        byline=write_byline(recording),
        notices=list_notices(recording, gate),
        gate=gate,
        gate_tables=[table for table in (tabulate_gate(gate), tabulate_gate_figures(gate)) if table] if gate else [],
        gate_chart=draw_gate(gate) if gate else None,
        confidence=format_share(CONFIDENCE),
        limit=format_limit(gate) if gate else "",
        compared=bool(ratios),
        latency_table=tabulate_latency(recording, ratios),
        latency_charts=draw_latencies(recording),
        # The gate's own chart shows the same pair.
        ratio_charts=draw_ratios(ratios, recording.subjects[0].label) if gate is None else (),
        subjects_table=tabulate_subjects(recording),
        tradeoff_charts=draw_tradeoffs(recording),
        throughput_table=tabulate_throughput(recording),
        ledger_tables=tabulate_ledgers(recording),
        operators=describe_operators(recording),
        trend=describe_trend(recording, history),
        conditions=list_conditions(recording),
        machine=list_facts(recording.machine),
        plan=list_plan(recording),
        style=_read_source("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _read_source(name: str) -> str:
    return (files("bench.report") / name).read_text(encoding="utf-8")
