"""Reads ``report.json``, what an export wrote. In: its path. Out: reports. Must not import: torch, a runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.recordings.ledger import LedgerRow
from exporter.reporting.report import CandidateRow, Ratio, Report
from runtimes.errors import CorruptArtifact

REPORT_NAME = "report.json"


def read_reports(path: Path) -> tuple[Report, ...]:
    """Read what an export wrote, one report a target.

    Raises:
        CorruptArtifact: it is missing, not JSON, or holds no report.
    """
    try:
        reports = json.loads(path.read_text(encoding="utf-8"))["reports"]
        return tuple(_read_report(data) for data in reports)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptArtifact(f"not a report: {error}", where=str(path), cure="export again") from error


def _read_report(data: Mapping[str, Any]) -> Report:
    rows = tuple(map(_read_row, data["rows"]))
    # Reports of exports before there were sparse kernels have no ledger.
    ledger = tuple(LedgerRow(**{**row, "shape": tuple(row["shape"])}) for row in data.get("ledger", ()))
    return Report(**{**data, "findings": tuple(data["findings"]), "rows": rows, "ledger": ledger})


def _read_row(row: Mapping[str, Any]) -> CandidateRow:
    speed = {shape: Ratio(**ratio) for shape, ratio in row["speed"].items()}
    return CandidateRow(**{**row, "speed": speed})
