"""What the machine could do while the sparse suite ran: probed before each measurement, shown beside its table.

In: what was probed. Out: the peaks of one table, and text. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["models", "layers", "profile", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """One core's multiply-adds, and a dense matrix product on all ``threads``, in GFLOP/s.

    Probed right before what is found in the tables of ``part`` at ``row`` (``80%``, or the layer as ``384x1536``) and
    ``column`` (the shape as ``8x128``, or the number of tokens).
    """

    part: Part
    threads: int
    row: str
    column: str
    core_gflops: float
    gemm_gflops: float


def name_share(share: float) -> str:
    """``0.8`` -> ``80%``."""
    return f"{share:.0%}"


def name_pair(pair: tuple[int, int]) -> str:
    """``(8, 128)`` -> ``8x128``."""
    return f"{pair[0]}x{pair[1]}"


def pick_peaks(
    peaks: Sequence[Peak], part: Part, threads: int, *, row: str | None = None, column: str | None = None
) -> list[Peak]:
    """Return the peaks of a part and a number of threads; of one row or column where it is given."""
    return [
        peak
        for peak in peaks
        if (peak.part, peak.threads) == (part, threads) and row in (None, peak.row) and column in (None, peak.column)
    ]


def describe_peaks(peaks: Sequence[Peak]) -> str:
    """Return the range of both figures as text."""
    if not peaks:
        return "not probed"
    cores = _show_range([peak.core_gflops for peak in peaks])
    products = _show_range([peak.gemm_gflops for peak in peaks])
    return f"one core {cores} GFLOP/s, dense product {products}"


def _show_range(figures: Sequence[float]) -> str:
    low, high = f"{min(figures):.0f}", f"{max(figures):.0f}"
    return low if low == high else f"{low} to {high}"
