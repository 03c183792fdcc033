"""The candidate tables as a picture: ``python -m exporter.picture out/report.json docs/result-table.svg``.

In: the ``report.json`` of a real export. Out: an SVG. Must not import: torch, a runtime.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.ledger import LedgerRow
from exporter.report import CandidateRow, Ratio, Report, render_ledger, render_table
from runtimes.atomic import write_text
from runtimes.errors import CorruptArtifact, StepdownError, UsageError

_COLUMNS = 150


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
    ledger = tuple(LedgerRow(**{**row, "shape": tuple(row["shape"])}) for row in data.get("ledger", ()))
    return Report(**{**data, "findings": tuple(data["findings"]), "rows": rows, "ledger": ledger})


def _read_row(row: Mapping[str, Any]) -> CandidateRow:
    speed = {shape: Ratio(**ratio) for shape, ratio in row["speed"].items()}
    return CandidateRow(**{**row, "speed": speed})


def draw_tables(reports: Sequence[Report]) -> str:
    """Return the tables with their verdicts as SVG that loads nothing from elsewhere."""
    from rich.console import Console

    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    for report in reports:
        console.print(render_table(report))
        if report.ledger:
            console.print(render_ledger(report))
        console.print(report.verdict, highlight=False, markup=False)
    svg = console.export_svg(title="stepdown export", unique_id="stepdown")
    # rich names a web font; without it the viewer's own monospace font is used.
    return re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


def main(arguments: list[str]) -> int:
    """Draw the named report into the named file."""
    try:
        if len(arguments) != 2:
            raise UsageError("two paths are needed", cure="python -m exporter.picture REPORT.json TABLE.svg")
        write_text(Path(arguments[1]), draw_tables(read_reports(Path(arguments[0]))))
    except StepdownError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
