"""Where a suite leaves everything it measured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from runtimes.atomic import write_text


def write_results(folder: Path, suite: str, document: str) -> Path:
    """Write a JSON document into ``folder``, made where it is not there, under the suite's name and the time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{suite}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    write_text(path, document + "\n")
    return path
