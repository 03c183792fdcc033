"""What every target gets from the pipeline and gives back to it. Plain data; must not import a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.statistics import CalibrationStatistics
from exporter.candidates.timing import TimingPlan
from exporter.judging.held_out import HeldOut
from exporter.options import ExportOptions
from exporter.probe_feeds import find_contexts, usable_shapes
from exporter.progress import Progress
from exporter.reporting.report import Report
from exporter.stopwatch import Stopwatch
from exporter.tracing.trace import Traced
from runtimes.artifact import Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One target's part of an export.

    Attributes:
        traced: The float model.
        options: What the user asked for.
        held_out: Data to judge by.
        statistics: Of the traced model, one calibration for all targets; None where no precision needs them.
        work: An empty directory; nothing is written outside of it.
        progress: Says what is going on.
        watch: Holds the seconds of what all targets share, and collects this target's own.
    """

    traced: Traced
    options: ExportOptions
    held_out: HeldOut
    statistics: CalibrationStatistics | None
    work: Path
    progress: Progress
    watch: Stopwatch


def make_timing_plan(job: Job) -> TimingPlan:
    """Return what a target times its candidates on: the shapes that the model can tell apart."""
    inputs = job.traced.artifact.inputs
    return TimingPlan(
        shapes=usable_shapes(inputs, job.options.shapes),
        vocabulary=job.held_out.vocabulary,
        seed=job.options.seed,
        contexts=find_contexts(inputs, job.traced.max_length),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """The chosen artifact, the report, and what the manifest says of them.

    Attributes:
        artifact: The chosen artifact, where it was built.
        shipped: Every file that ships, by its name in the target's folder; the artifact's own file is first.
        report: On all candidates.
        entry: What the manifest says of this target beyond the artifact: what it requires and where it runs.
        versions: Packages that made it.
        steps: What was done.
        calibration: What was decided for each activation; None where nothing was.
    """

    artifact: Artifact
    shipped: Mapping[str, Path]
    report: Report
    entry: Mapping[str, Any]
    versions: Mapping[str, str]
    steps: tuple[Mapping[str, Any], ...]
    calibration: Mapping[str, Any] | None
