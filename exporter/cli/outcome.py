"""What a verb gives back, and the module protocol of a verb. Must not import anything heavy."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runtimes.errors import StepdownError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exporter.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a verb.

    ``document`` is what ``--json`` prints. ``text`` goes to stdout for people and pipes, ``tables`` and ``notes``, what
    else is worth knowing in one sentence each, to stderr.
    ``failure`` is for a verb that has something to show and fails all the same, as a gate does: after the result, its
    message goes to stderr and its exit code is returned.
    """

    document: Mapping[str, object]
    text: str
    tables: tuple[RenderableType, ...] = ()
    notes: tuple[str, ...] = ()
    failure: StepdownError | None = None


class Verb(Protocol):
    """One verb is one module with these names."""

    SUMMARY: str
    EXAMPLE: str
    EXTRA: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""
        ...

    def execute(self, arguments: argparse.Namespace, progress: Progress) -> Outcome:
        """Do it. Raises StepdownError."""
        ...


def format_json(document: Mapping[str, object]) -> str:
    """Return strict JSON: what is not a number (an open bound is infinite) becomes null."""
    return json.dumps(_replace_infinite(document), indent=2)


def _replace_infinite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _replace_infinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_infinite(item) for item in value]
    return value


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned plain text; columns whose cells are all numbers are aligned to the right."""
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    right = [
        bool(rows) and all(row[i][:1].isdigit() or row[i] in {"", "-"} for row in rows) for i in range(len(headers))
    ]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *map(line, rows)])


def format_bytes(count: int) -> str:
    """Return a size as people read it: decimal units, as files are sold."""
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB"):
        count_in_unit = count / {"kB": 1e3, "MB": 1e6}[unit]
        if count_in_unit < 1000:
            return f"{count_in_unit:.1f} {unit}"
    return f"{count / 1e9:.2f} GB"
