"""One bench run, from the user's words to a recording.

In: :class:`BenchOptions`. Out: a recording, and what failed. Must not import: torch, a runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench.measuring.record import Recorded, RecordPlan, record
from bench.recordings.ledger import LedgerRow
from bench.recordings.recording import Recording
from exporter.measuring.accuracy import AccuracyPlan, Judged, measure_accuracies
from exporter.measuring.feeds import FeedsPlan, Shape, write_feeds
from exporter.measuring.subjects import BenchSubject, SubjectOptions, resolve_subjects
from exporter.progress import Progress
from exporter.reporting.report_file import REPORT_NAME, read_reports
from runtimes.artifact import MANIFEST_NAME, TensorSpec
from runtimes.errors import StepdownError


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Attributes:
        subjects: As the user wrote them, see :mod:`exporter.measuring.subjects`.
        versus: The reference of the ratios; None takes the first subject.
        shapes: (batch, sequence) pairs; empty takes the usual ones.
        subject: What holds for every subject.
        plan: How to measure.
        accuracy: What to judge the answers by; None judges none.
    """

    subjects: tuple[str, ...]
    versus: str | None = None
    shapes: tuple[Shape, ...] = ()
    subject: SubjectOptions = field(default_factory=SubjectOptions)
    plan: RecordPlan = field(default_factory=RecordPlan)
    accuracy: AccuracyPlan | None = None


def run_bench(options: BenchOptions, progress: Progress) -> Recorded:
    """Resolve, judge and measure the subjects.

    Raises:
        UsageError: what :func:`exporter.measuring.subjects.resolve_subjects` refuses; the shapes fit no model; the data
            cannot be used.
        StepdownError: not one subject could be measured: the error of the first.
    """
    subjects = resolve_subjects(order_words(options.subjects, options.versus), options.subject)
    # First: whether the data can be used should be known before minutes of timing.
    judged = _judge(subjects, options.accuracy, progress)
    directories = tuple(subject.directory for subject in subjects)
    feeds = FeedsPlan(shapes=options.shapes, directories=directories, seed=options.plan.rounds.seed)
    with tempfile.TemporaryDirectory() as folder:
        make_feeds = partial(_write_feeds, plan=feeds, folder=Path(folder))
        recorded = record([subject.spec for subject in subjects], make_feeds, options.plan, progress)
    failures = {**judged.failures, **recorded.failures}
    known = {subject.spec.label: subject for subject in subjects}
    return Recorded(recording=_add_findings(recorded.recording, judged, known, failures), failures=failures)


def order_words(subjects: Sequence[str], versus: str | None) -> tuple[str, ...]:
    """Return the subjects with the reference first, and once."""
    if versus is None:
        return tuple(subjects)
    return (versus, *(word for word in subjects if word != versus))


def _judge(subjects: Sequence[BenchSubject], plan: AccuracyPlan | None, progress: Progress) -> Judged:
    if plan is None:
        return Judged(accuracies={}, failures={})
    with progress.task("evaluating", None) as task:
        return measure_accuracies(subjects, plan, task.advance)


def _write_feeds(inputs: Sequence[Sequence[TensorSpec]], *, plan: FeedsPlan, folder: Path) -> dict[str, Path]:
    return write_feeds(inputs, plan, folder)


def read_ledger(subject: BenchSubject) -> tuple[LedgerRow, ...]:
    """Return what the export of a subject wrote of its zeros; nothing where no export made it."""
    path = subject.directory / REPORT_NAME
    if not (subject.directory / MANIFEST_NAME).is_file() or not path.is_file():
        return ()
    return next((report.ledger for report in read_reports(path) if report.target == subject.spec.runtime), ())


def _add_findings(
    recording: Recording,
    judged: Judged,
    known: Mapping[str, BenchSubject],
    failures: Mapping[str, StepdownError],
) -> Recording:
    subjects = tuple(
        replace(
            one,
            accuracy=judged.accuracies.get(one.label),
            ledger=read_ledger(known[one.label]),
            notes=known[one.label].notes,
            failure=str(failures[one.label]) if one.label in failures else None,
        )
        for one in recording.subjects
    )
    return replace(recording, subjects=subjects)
