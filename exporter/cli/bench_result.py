"""What ``stepdown bench`` shows: tables, sentences, a JSON document.

In: a recording. Out: each of the three. Must not import: a runtime; rich only inside functions.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.recordings.recording import Recording, SubjectRecord
from bench.recordings.summary import Row, summarise
from bench.timing.compare import MIN_ROUNDS
from exporter.cli.outcome import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

_NONE = "-"
# The operators shown of a subject; the rest is in the sample file and the report.
_MOST_OPS = 10


def describe_recording(recording: Recording) -> dict[str, Any]:
    """Return the recording as plain JSON data, with figures in place of raw samples."""
    return {
        "run": recording.run,
        "started": recording.started,
        "commit": recording.commit,
        "machine": dict(recording.machine),
        "conditions": asdict(recording.conditions),
        "plan": dict(recording.plan),
        "reference": recording.subjects[0].label,
        "subjects": [_describe_subject(subject) for subject in recording.subjects],
        "results": [asdict(row) for row in summarise(recording)],
    }


def tell_recording(recording: Recording) -> Iterator[str]:
    """Yield a line for every subject and shape, then what failed, was left out, or makes the run unstable."""
    reference = recording.subjects[0].label
    for row in summarise(recording):
        times = ", ".join(f"{name} {_show_ms(ns)} ms" for name, ns in _list_quantiles(row))
        faster = f", {_show_speed(row)} times the speed of {reference}" if row.speed is not None else ""
        yield f"{row.label} at {row.shape}: {times}{faster}"
    for subject in recording.subjects:
        if subject.failure is not None:
            yield f"failed: {subject.label}: {subject.failure.splitlines()[0]}"
    yield from (f"note: {subject.label}: {text}" for subject in recording.subjects for text in subject.notes)
    yield from (f"left out: {sentence}" for sentence in recording.plan.get("left_out", ()))
    yield from (f"unstable: {sentence}" for sentence in recording.conditions.unstable)


def render_tables(recording: Recording) -> tuple[Table, ...]:
    """Return the table of all subjects, and of each that was profiled the operators that take the longest."""
    profiled = [subject for subject in recording.subjects if subject.ops]
    return (_render_subjects(recording), *(_render_ops(subject) for subject in profiled))


def _render_subjects(recording: Recording) -> Table:
    """Return one table: a row for each subject and shape, what belongs to the subject alone in its first row."""
    from rich.table import Table

    metrics = tuple(dict.fromkeys(one.accuracy.metric for one in recording.subjects if one.accuracy is not None))
    table = Table(title=_title(recording), title_justify="left")
    table.add_column("subject")
    table.add_column("shape")
    for name in ("p50 ms", "p90 ms", "p99 ms", f"speed vs {recording.subjects[0].label}", "runs/s"):
        table.add_column(name, justify="right")
    for name in ("load ms", "size", "peak memory", *metrics):
        table.add_column(name, justify="right")
    rows = summarise(recording)
    for subject in recording.subjects:
        cells = [_show_row(row) for row in rows if row.label == subject.label]
        missing = ("failed" if subject.failure else _NONE, *[_NONE] * 5)
        beside = _show_subject(subject, metrics)
        for number, row_cells in enumerate(cells or [missing]):
            is_first = number == 0
            named = subject.label if is_first else ""
            table.add_row(named, *row_cells, *(beside if is_first else [""] * len(beside)))
        table.add_section()
    return table


def _render_ops(subject: SubjectRecord) -> Table:
    """Return the longest operators at the largest shape, where most of the time goes to them and not to starting."""
    from rich.table import Table

    total_ns = Counter[str]()
    for op in subject.ops:
        total_ns[op.shape] += op.ns
    shape, whole = total_ns.most_common(1)[0]
    table = Table(title=f"{subject.label} at {shape}, by operator", title_justify="left")
    table.add_column("operator")
    table.add_column("module")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    longest = sorted((op for op in subject.ops if op.shape == shape), key=lambda op: -op.ns)[:_MOST_OPS]
    for op in longest:
        table.add_row(op.op, op.module or op.name, _show_ms(op.ns), f"{op.ns / max(whole, 1):.1%}")
    return table


def _title(recording: Recording) -> str:
    cpu, threads = recording.machine.get("cpu"), recording.machine.get("threads")
    rounds = recording.plan.get("rounds")
    return f"{cpu}, {threads or 'all'} threads, {rounds} rounds{', UNSTABLE' if recording.conditions.unstable else ''}"


def _describe_subject(subject: SubjectRecord) -> dict[str, Any]:
    described = asdict(subject)
    del described["answers"]  # values to compare models by, of no use to a reader
    return described


def _list_quantiles(row: Row) -> tuple[tuple[str, float], ...]:
    return ("p50", row.p50_ns), ("p90", row.p90_ns), ("p99", row.p99_ns)


def _show_row(row: Row) -> tuple[str, ...]:
    return (row.shape, *(_show_ms(ns) for _, ns in _list_quantiles(row)), _show_speed(row), _show_rates(row))


def _show_ms(ns: float) -> str:
    return f"{ns / 1e6:.3g}" if ns < 1e9 else f"{ns / 1e6:.0f}"


def _show_speed(row: Row) -> str:
    if row.speed is None:
        return _NONE
    # Fewer rounds bound nothing that could be relied on.
    known = row.rounds >= MIN_ROUNDS
    low, high = (f"{bound:.3f}" if known else "?" for bound in (row.speed.low, row.speed.high))
    return f"{row.speed.ratio:.3f} [{low}, {high}]"


def _show_rates(row: Row) -> str:
    """``412`` of one stream; ``412, 4: 980`` where more were measured."""
    rates = {
        streams: f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for streams, rate in sorted(row.runs_per_s.items())
    }
    return ", ".join(rate if streams == 1 else f"{streams}: {rate}" for streams, rate in rates.items())


def _show_subject(subject: SubjectRecord, metrics: tuple[str, ...]) -> list[str]:
    figures, accuracy = subject.figures, subject.accuracy
    return [
        f"{statistics.median(figures.load_ns) / 1e6:.0f}" if figures.load_ns else _NONE,
        format_bytes(figures.size_bytes) if figures.size_bytes is not None else _NONE,
        format_bytes(figures.peak_memory_bytes) if figures.peak_memory_bytes is not None else _NONE,
        *(f"{accuracy.value:.4f}" if accuracy and accuracy.metric == metric else _NONE for metric in metrics),
    ]
