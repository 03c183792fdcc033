"""The tables of a report. In: a recording, the ratios to its reference, a gate's result. Out: tables as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from bench.gating.verdict import FigureVerdict, GateResult
from bench.recordings.recording import Recording, SubjectRecord
from bench.recordings.summary import CONFIDENCE
from bench.report.cells import Cell, Column, Table, Tone
from bench.report.ratios import Ratio
from bench.report.units import (
    MISSING,
    choose_time_unit,
    format_bound,
    format_bytes,
    format_change,
    format_count,
    format_ratio,
    format_share,
)
from bench.timing.compare import Verdict

_NONE = Cell(MISSING)


def tabulate_latency(recording: Recording, ratios: Sequence[Ratio]) -> Table:
    """Return one row for each subject and shape: quantiles of all runs, and the ratio to the reference."""
    measured = [
        (subject, shape, samples)
        for shape in recording.shapes()
        for subject in recording.subjects
        if (samples := recording.samples(subject.label, shape)) is not None
    ]
    unit = choose_time_unit(min((samples.quantile_ns(0.5) for _, _, samples in measured), default=1e6))
    found = {(ratio.label, ratio.shape): ratio for ratio in ratios}
    # A single subject is no reference of anything.
    reference = recording.subjects[0] if ratios else None
    rows = []
    for subject, shape, samples in measured:
        quantiles = [samples.quantile_ns(share) for share in (0.5, 0.9, 0.99)]
        rows.append(
            (
                Cell(subject.label),
                Cell(shape),
                *(Cell(unit.format(ns), sort=ns) for ns in quantiles),
                *_show_ratio(found.get((subject.label, shape)), is_reference=subject is reference),
                Cell(str(sum(map(len, samples.ns))), sort=sum(map(len, samples.ns)), tone="quiet"),
            )
        )
    columns = (
        Column(title="Subject"),
        Column(title="Shape", aside=True),
        *(Column(title=name, unit=unit.name, numeric=True) for name in ("p50", "p90", "p99")),
        Column(title="Speed", numeric=True),
        Column(title=f"{format_share(CONFIDENCE)} bound", numeric=True),
        Column(title="Runs", numeric=True),
    )
    return Table(caption="Latency", columns=columns, rows=tuple(rows)).drop_empty(MISSING)


def tabulate_subjects(recording: Recording) -> Table:
    """Return one row for each subject: what it is, its figures beside latency, and its failure where it failed."""
    metrics = dict.fromkeys(one.accuracy.metric for one in recording.subjects if one.accuracy is not None)
    columns = (
        Column(title="Subject"),
        Column(title="Runs on", aside=True),
        Column(title="Size", numeric=True),
        Column(title="Load", unit="ms", numeric=True),
        Column(title="Load memory", numeric=True),
        Column(title="Peak memory", numeric=True),
        Column(title="Nodes", numeric=True),
        Column(title="Parameters", numeric=True),
        *(Column(title=metric, numeric=True) for metric in metrics),
    )
    rows = tuple(_show_subject(subject, tuple(metrics)) for subject in recording.subjects)
    return Table(caption="Subjects", columns=columns, rows=rows).drop_empty(MISSING)


def tabulate_throughput(recording: Recording) -> Table | None:
    """Return runs per second by shape and by number of concurrent streams; None where it was not measured."""
    measured = {
        (subject.label, one.shape, one.streams): one.runs / one.ns * 1e9
        for subject in recording.subjects
        for one in subject.throughput
    }
    streams = sorted({streams for _, _, streams in measured})
    rows = tuple(
        (
            Cell(label),
            Cell(shape),
            *(_show_rate(measured.get((label, shape, count))) for count in streams),
        )
        for label, shape in dict.fromkeys((label, shape) for label, shape, _ in measured)
    )
    columns = (
        Column(title="Subject"),
        Column(title="Shape", aside=True),
        *(
            Column(title=f"{count} {'stream' if count == 1 else 'streams'}", unit="runs/s", numeric=True)
            for count in streams
        ),
    )
    return Table(caption="Throughput", columns=columns, rows=rows) if rows else None


def tabulate_gate(gate: GateResult) -> Table | None:
    """Return the gate's verdict on each shape; None where nothing was timed."""
    unit = choose_time_unit(min((min(one.base_ns, one.head_ns) for one in gate.shapes), default=1e6))
    rows = tuple(
        (
            Cell(one.shape),
            Cell(unit.format(one.base_ns), sort=one.base_ns),
            Cell(unit.format(one.head_ns), sort=one.head_ns),
            Cell(format_ratio(one.ratio), sort=one.ratio),
            Cell(format_bound(one.low, one.high), sort=one.low, tone="quiet"),
            Cell(str(one.rounds), sort=one.rounds, tone="quiet"),
            Cell(one.verdict, tone=_TONES[one.verdict]),
        )
        for one in gate.shapes
    )
    columns = (
        Column(title="Shape"),
        Column(title="Base", unit=unit.name, numeric=True),
        Column(title="Head", unit=unit.name, numeric=True),
        Column(title="Speed", numeric=True),
        Column(title=f"{format_share(gate.confidence)} bound", numeric=True),
        Column(title="Rounds", numeric=True),
        Column(title="Verdict"),
    )
    return Table(caption="Time", columns=columns, rows=rows) if rows else None


def tabulate_gate_figures(gate: GateResult) -> Table | None:
    """Return what was gated beside time; None where nothing was."""
    columns = (
        Column(title="Figure"),
        *(Column(title=name, numeric=True) for name in ("Base", "Head", "Change", "Allowed")),
        Column(title="Verdict"),
    )
    rows = tuple(_show_figure(one) for one in gate.figures)
    return Table(caption="Beside time", columns=columns, rows=rows) if rows else None


_TONES: dict[Verdict, Tone] = {"faster": "good", "same": "", "slower": "bad", "inconclusive": "quiet"}


def _show_ratio(ratio: Ratio | None, *, is_reference: bool) -> tuple[Cell, Cell]:
    if is_reference:
        return Cell("reference", sort=1.0, tone="quiet"), Cell("", sort=1.0)
    if ratio is None:
        return _NONE, _NONE
    return (
        Cell(format_ratio(ratio.ratio), sort=ratio.ratio, tone=_TONES[ratio.verdict]),
        Cell(format_bound(ratio.low, ratio.high), sort=ratio.low, tone="quiet"),
    )


def _show_subject(subject: SubjectRecord, metrics: Sequence[str]) -> tuple[Cell, ...]:
    figures = subject.figures
    tone: Tone = "bad" if subject.failure else ""
    load_ns = median(figures.load_ns) if figures.load_ns else None
    accuracy = subject.accuracy
    return (
        Cell(subject.label),
        Cell(f"{subject.runtime}, {subject.device}{', failed' if subject.failure else ''}", tone=tone),
        _show_bytes(figures.size_bytes),
        _NONE if load_ns is None else Cell(f"{load_ns / 1e6:.0f}", sort=load_ns),
        _show_bytes(figures.load_memory_bytes),
        _show_bytes(figures.peak_memory_bytes),
        _NONE if figures.nodes is None else Cell(format_count(figures.nodes), sort=figures.nodes),
        _NONE if figures.parameters is None else Cell(format_count(figures.parameters), sort=figures.parameters),
        *(
            Cell(f"{accuracy.value:.4f}", sort=accuracy.value)
            if accuracy is not None and accuracy.metric == metric and math.isfinite(accuracy.value)
            else _NONE
            for metric in metrics
        ),
    )


def _show_rate(rate: float | None) -> Cell:
    return _NONE if rate is None else Cell(f"{rate:.1f}", sort=rate)


def _show_bytes(count: int | None) -> Cell:
    return _NONE if count is None else Cell(format_bytes(count), sort=count)


def _show_figure(one: FigureVerdict) -> tuple[Cell, ...]:
    show = format_bytes if one.name.endswith("_bytes") else format_count
    return (
        Cell(one.name.removesuffix("_bytes").replace("_", " ")),
        Cell(show(one.base), sort=one.base),
        Cell(show(one.head), sort=one.head),
        Cell(format_change(one.change), sort=one.change),
        Cell(format_change(one.allowed), sort=one.allowed, tone="quiet"),
        Cell("ok", tone="quiet") if one.ok else Cell("too much", tone="bad"),
    )
