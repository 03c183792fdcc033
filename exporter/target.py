"""What every target gives back to the pipeline. Plain data; must not import a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.statistics import CalibrationStatistics
from exporter.report import Report
from runtimes.artifact import Artifact


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
        statistics: What was collected, for the next target.
    """

    artifact: Artifact
    shipped: Mapping[str, Path]
    report: Report
    entry: Mapping[str, Any]
    versions: Mapping[str, str]
    steps: tuple[Mapping[str, Any], ...]
    calibration: Mapping[str, Any] | None
    statistics: CalibrationStatistics | None
