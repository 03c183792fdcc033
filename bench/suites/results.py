"""How a suite ends: everything it measured in a file, its tables on stdout, or an error and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from runtimes.atomic import write_text
from runtimes.errors import StepdownError

T = TypeVar("T")


def run_and_report(
    suite: str, folder: Path, measure: Callable[[], T], serialise: Callable[[T], str], render: Callable[[T], str]
) -> int:
    """Measure, write the JSON into ``folder``, print the tables, and return the exit code of the suite."""
    try:
        results = measure()
    except StepdownError as error:
        sys.stderr.write(f"{suite}: {error}\n")
        return error.exit_code
    path = write_results(folder, suite.replace("_", "-"), serialise(results))
    sys.stdout.write(render(results) + f"\n\nAll figures: {path}\n")
    return 0


def write_results(folder: Path, suite: str, document: str) -> Path:
    """Write a JSON document into ``folder``, made where it is not there, under the suite's name and the time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{suite}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    write_text(path, document + "\n")
    return path
