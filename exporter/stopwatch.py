"""How long each step of a job took. Plain data in seconds, for the report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Collects seconds by step; a step timed twice adds up. One that follows another starts with its seconds."""

    def __init__(self, before: Stopwatch | None = None) -> None:
        self.seconds: dict[str, float] = dict(before.seconds) if before is not None else {}

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Time the block under ``step``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start
