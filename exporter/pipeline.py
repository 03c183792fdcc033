"""The main job: a model in, a verified directory out.

In: ExportOptions. Out: a directory with the chosen artifact, manifest and report.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """Where the export lies and what was measured, one report a target."""

    output: Path
    reports: tuple[Report, ...]
