"""Builds a peer's file once and keeps it, so that a bench that was cut off goes on where it was.

In: a folder, a name, what the file depends on, and how to make it. Out: the file and how long it took.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtimes.atomic import write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A peer's model file (or directory) and how long its tool took to make it; None where that is not known."""

    path: Path
    seconds: float | None


def build_once(
    folder: Path, name: str, depends_on: dict[str, str], make: Callable[[Path], None], *, suffix: str = ".onnx"
) -> Built:
    """Return ``folder/name.onnx`` (or another suffix), made by ``make`` unless it is there and was made of the same.

    The record beside it is written last: a file without it is made again.
    """
    path, record = folder / f"{name}{suffix}", folder / f"{name}.json"
    if path.is_file() and record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        if found["depends_on"] == depends_on:
            return Built(path=path, seconds=found["seconds"])
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    start = time.perf_counter()
    make(path)
    seconds = time.perf_counter() - start
    write_text(record, json.dumps({"depends_on": depends_on, "seconds": seconds}) + "\n")
    return Built(path=path, seconds=seconds)
