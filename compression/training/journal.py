"""The metrics of a run as they come in: one JSON object a line, appended, cut back to where a run goes on.

In: plain numbers. Out: ``metrics.jsonl``. Must not import torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.atomic import append_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A file of metrics."""

    path: Path

    def write(self, entry: Mapping[str, object]) -> None:
        """Append one line.

        Raises:
            OutputError: no room; what was there before stays.
        """
        append_bytes(self.path, (json.dumps(entry) + "\n").encode("utf-8"))

    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def cut_back(self, size_bytes: int) -> None:
        """Forget what a run wrote after it last kept its state: it will write that again."""
        if self.size_bytes() > size_bytes:
            os.truncate(self.path, size_bytes)

    def drop_from(self, step: int) -> None:
        """Forget every entry of ``step`` and those after it, and what a kill cut short."""
        if not self.path.is_file():
            return
        kept = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                break
            kept += len(line)
        self.cut_back(kept)
