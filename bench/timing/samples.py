"""Raw timings of one subject: integers as they were read from the clock, never a summary.

Plain data; statistics are computed when asked for. Must not import a runtime. Their file:
bench/recordings/recording.py.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What was measured of one subject.

    Attributes:
        label: The subject's name.
        ns: Duration of each run in nanoseconds, by block; block ``i`` of all subjects measured together belongs to
            round ``i``.
        warmup_ns: The runs before, not counted.
        machine: What :func:`bench.machine.description.describe_machine` said.
        artifact_sha256: What was run, where it was a file.
    """

    label: str
    ns: tuple[tuple[int, ...], ...]
    warmup_ns: tuple[int, ...]
    machine: Mapping[str, Any]
    artifact_sha256: str | None = None

    def block_medians_ns(self) -> tuple[float, ...]:
        """Median of each block, in round order."""
        return tuple(float(statistics.median(block)) for block in self.ns)

    def median_ns(self) -> float:
        """Median over the block medians, so that a long block counts as much as a short one."""
        return float(statistics.median(self.block_medians_ns()))

    def quantile_ns(self, share: float) -> float:
        """The smallest duration that at least ``share`` of all runs (0 < share <= 1) did not exceed."""
        runs = sorted(run for block in self.ns for run in block)
        return float(runs[max(0, math.ceil(share * len(runs)) - 1)])
