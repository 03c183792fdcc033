"""How the processors of this machine spent their time, as Linux counts it.

In: ``/proc/stat``. Out: seconds since the machine started; what the host took away (steal) and what was busy.
Must not import a runtime.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Seconds since the machine started, over some processors; ``own_s`` is of this process and its ended children.

    ``busy_s`` is everything that ran here, ``stolen_s`` is what the host gave to others, ``total_s`` holds both and
    idling.
    """

    busy_s: float
    stolen_s: float
    total_s: float
    own_s: float

    def steal_share(self) -> float:
        """Share of the time that the host took away."""
        return self.stolen_s / self.total_s if self.total_s > 0 else 0.0

    def other_share(self) -> float:
        """Share of the time that ran something other than this process and its children."""
        return max(0.0, self.busy_s - self.own_s) / self.total_s if self.total_s > 0 else 0.0

    def since(self, earlier: ProcessorTime) -> ProcessorTime:
        """Return what passed between the two."""
        return ProcessorTime(
            busy_s=self.busy_s - earlier.busy_s,
            stolen_s=self.stolen_s - earlier.stolen_s,
            total_s=self.total_s - earlier.total_s,
            own_s=self.own_s - earlier.own_s,
        )


def read_processor_time(processors: Collection[int] = ()) -> ProcessorTime | None:
    """Read the counters of some processors, by default those this process may use; None where they are not told."""
    try:
        text = _STAT.read_text(encoding="ascii")
    except OSError:
        return None
    return parse_stat(
        text, processors or os.sched_getaffinity(0), ticks_per_s=os.sysconf("SC_CLK_TCK"), own_s=_read_own_s()
    )


def parse_stat(text: str, processors: Collection[int], *, ticks_per_s: int, own_s: float) -> ProcessorTime | None:
    """Sum the lines ``cpu<N> user nice system idle iowait irq softirq steal`` (proc_stat(5)) of ``processors``."""
    busy = stolen = total = 0
    for number, rest in re.findall(r"^cpu(\d+) (.+)$", text, flags=re.MULTILINE):
        if int(number) not in processors:
            continue
        user, nice, system, idle, iowait, irq, softirq, steal, *_ = map(int, rest.split())
        ran = user + nice + system + irq + softirq
        busy, stolen, total = busy + ran, stolen + steal, total + ran + idle + iowait + steal
    if total == 0:
        return None
    return ProcessorTime(
        busy_s=busy / ticks_per_s, stolen_s=stolen / ticks_per_s, total_s=total / ticks_per_s, own_s=own_s
    )


def _read_own_s() -> float:
    # A child counts from when it has ended and was waited for.
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
