"""What making a decoder costs: ``stepdown export`` in float alone, and as it comes; time, memory, size.

In: a workplace. Out: both. Each is made anew in a folder that is removed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.stepdown_cli import call
from bench.suites.decoder.models import FLOAT, Workplace, hash_folder, name_shipped
from bench.suites.goals import Goal, decide
from bench.table import render_markdown

# For a decoder of 135 million weights in float.
LONGEST_SECONDS = 60.0
_AS_IT_COMES = "as it comes, with texts to calibrate"


def measure_export(work: Workplace) -> dict[str, Mapping[str, Any]]:
    """Return by what is asked of ``stepdown export`` what it takes."""
    checkpoint = work.unpack()
    asked = {FLOAT: ("--precision", FLOAT), _AS_IT_COMES: ("--calibration-data", str(work.texts.train))}
    found: dict[str, Mapping[str, Any]] = {}
    for title, words in asked.items():
        depends_on = {"checkpoint": hash_folder(checkpoint), "words": words}
        name = f"export-{checkpoint.name}-{title.partition(',')[0].replace(' ', '-')}"
        cost = work.record(name, depends_on, partial(_export, checkpoint, words, work.commands.threads))
        goals = [asdict(judge_seconds(cost["seconds"]))] if title == FLOAT else []
        found[title] = {**cost, "goals": goals}
    return found


def judge_seconds(seconds: float) -> Goal:
    """Judge how long a float export took."""
    return Goal(
        name="export in float, end to end",
        wanted=f"<= {LONGEST_SECONDS:.0f} s",
        measured=f"{seconds:.1f} s",
        verdict=decide(seconds <= LONGEST_SECONDS),
    )


def render_export(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown, and where the time went."""
    rows = [
        [title, f"{one['seconds']:.1f}", f"{one['peak_bytes'] / 1e6:.0f}", f"{one['bytes'] / 1e6:.0f}", one["shipped"]]
        for title, one in found.items()
    ]
    spent = [
        f"{title}: " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in one["stages"].items())
        for title, one in found.items()
    ]
    header = ["stepdown export", "s", "MB at most", "MB written", "shipped as"]
    return "\n\n".join([render_markdown(header, rows), *spent])


def _export(checkpoint: Path, words: Sequence[str], threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=checkpoint.parent, prefix=".export.") as folder:
        directory = Path(folder) / "made"
        cost = call("export", str(checkpoint), *words, "--threads", str(threads), "-o", str(directory))
        (report,) = json.loads((directory / "report.json").read_text(encoding="utf-8"))["reports"]
        written = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        return {
            **asdict(cost),
            "bytes": written,
            "shipped": name_shipped(directory),
            "stages": report["seconds"],
        }
