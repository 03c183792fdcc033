"""The candidate tables as a picture: ``python -m exporter.reporting.picture out/report.json docs/result-table.svg``.

In: the ``report.json`` of a real export. Out: an SVG. Must not import: torch, a runtime.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.reporting.report import Report, render_ledger, render_table
from exporter.reporting.report_file import read_reports
from runtimes.atomic import write_text
from runtimes.errors import StepdownError, UsageError

_COLUMNS = 150


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
            raise UsageError("two paths are needed", cure="python -m exporter.reporting.picture REPORT.json TABLE.svg")
        write_text(Path(arguments[1]), draw_tables(read_reports(Path(arguments[0]))))
    except StepdownError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
