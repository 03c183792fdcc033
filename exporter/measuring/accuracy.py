"""How good the answers of several subjects are, each run in a process of its own.

In: subjects and data. Out: accuracies, and what failed. Must not import: torch, a runtime.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes.worker_process import TIMEOUT_S
from bench.recordings.recording import Accuracy
from bench.subjects.process import SubjectProcess
from bench.subjects.process_session import ProcessSession
from exporter.judging.evaluate import (
    Advance,
    EvalData,
    Evaluated,
    check_metric,
    choose_metric,
    evaluate,
    evaluate_cosine,
)
from exporter.measuring.subjects import BenchSubject
from runtimes.errors import BudgetMissed, StepdownError, UsageError
from runtimes.serving.subject import read_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyPlan:
    """What to measure; ``metric`` None takes that of the reference's task. ``cosine`` compares with the reference."""

    data: EvalData
    metric: str | None = None
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """By label: the accuracies, and the errors of subjects that have none."""

    accuracies: Mapping[str, Accuracy]
    failures: Mapping[str, StepdownError]


def measure_accuracies(subjects: Sequence[BenchSubject], plan: AccuracyPlan, advance: Advance) -> Judged:
    """Evaluate every subject; the first is the reference.

    Raises:
        UsageError: there is no such metric, or none for the task.
        DataError: the data cannot be used.
    """
    metric = plan.metric or choose_metric(subjects[0].task)
    check_metric(metric)
    accuracies: dict[str, Accuracy] = {}
    failures: dict[str, StepdownError] = {}
    for subject in subjects:
        try:
            accuracies[subject.spec.label] = _evaluate(subject, subjects[0], metric, plan, advance)
        except UsageError:  # the data or the metric, not the subject
            raise
        except StepdownError as error:
            failures[subject.spec.label] = error
    return Judged(accuracies=accuracies, failures=failures)


def _evaluate(
    subject: BenchSubject, reference: BenchSubject, metric: str, plan: AccuracyPlan, advance: Advance
) -> Accuracy:
    with _open(subject, plan.timeout_s) as model:
        if metric == "cosine":
            with _open(reference, plan.timeout_s) as right:
                found = evaluate_cosine(model, right, plan.data, advance)
        else:
            found = evaluate(model, plan.data, metric, advance)
    # A sample file holds numbers alone: JSON has no NaN.
    if not math.isfinite(found.value):
        cure = "look for overflow; `stepdown run` shows what it answers"
        raise BudgetMissed(f"its {metric} is {found.value}", where=subject.spec.label, cure=cure)
    return Accuracy(metric=found.metric, value=found.value, samples=found.samples)


@contextmanager
def _open(subject: BenchSubject, timeout_s: float) -> Iterator[Evaluated]:
    tokenizer = subject.directory / "tokenizer.json"
    with SubjectProcess(subject.spec, timeout_s=timeout_s) as process, tempfile.TemporaryDirectory() as folder:
        yield Evaluated(
            session=ProcessSession(process, Path(folder)),
            tokenizer=tokenizer if tokenizer.is_file() else None,
            labels=read_labels(subject.directory),
        )
