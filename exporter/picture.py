"""The candidate table as a picture: ``python -m exporter.picture out/report.json docs/result-table.svg``.

In: the ``report.json`` of a real export. Out: an SVG. Must not import: torch, a runtime.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from exporter.report import CandidateRow, Ratio, Report, render_table
from runtimes.atomic import write_text
from runtimes.errors import CorruptArtifact, StepdownError, UsageError

_COLUMNS = 150


def read_report(path: Path) -> Report:
    """Read what ``Report.to_json`` wrote.

    Raises:
        CorruptArtifact: it is missing, not JSON, or no report.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(_read_row(row) for row in data.pop("rows"))
        return Report(**{**data, "findings": tuple(data["findings"])}, rows=rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptArtifact(f"not a report: {error}", where=str(path), cure="export again") from error


def _read_row(row: dict[str, Any]) -> CandidateRow:
    speed = {shape: Ratio(**ratio) for shape, ratio in row["speed"].items()}
    return CandidateRow(**{**row, "speed": speed})


def draw_table(report: Report) -> str:
    """Return the table and the verdict as SVG that loads nothing from elsewhere."""
    from rich.console import Console

    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(render_table(report))
    console.print(report.verdict, highlight=False, markup=False)
    svg = console.export_svg(title="stepdown export", unique_id="stepdown")
    # rich names a web font; without it the viewer's own monospace font is used.
    return re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


def main(arguments: list[str]) -> int:
    """Draw the named report into the named file."""
    try:
        if len(arguments) != 2:
            raise UsageError("two paths are needed", cure="python -m exporter.picture REPORT.json TABLE.svg")
        write_text(Path(arguments[1]), draw_table(read_report(Path(arguments[0]))))
    except StepdownError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
