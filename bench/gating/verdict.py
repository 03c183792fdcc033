"""What the gate answers, as plain data: one verdict over all shapes, and what it rests on.

In: nothing. Out: the frozen shapes that the gate fills and that text, JSON, JUnit and reports are made from.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.timing.compare import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeVerdict:
    """One shape. ``ratio`` is base time over head time (below 1, head is slower), ``low`` and ``high`` bound it.

    ``base_ns`` and ``head_ns`` are medians over block medians; ``rounds`` is how many blocks of each stand behind them.
    """

    shape: str
    verdict: Verdict
    ratio: float
    low: float
    high: float
    rounds: int
    base_ns: float
    head_ns: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureVerdict:
    """A figure that needs no clock: ``size_bytes``, ``nodes``, ``parameters``, ``load_memory_bytes``.

    ``change`` is ``head / base - 1``; ``ok`` is whether it stays within ``allowed``.
    """

    name: str
    base: int
    head: int
    change: float
    allowed: float
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The whole answer.

    Attributes:
        base: Label of the reference.
        head: Label of what was judged.
        verdict: Of time, over all shapes: slower if any shape is, else inconclusive if any is, else faster or same.
        max_regression: The slowdown that must not pass (0.05 is 5 %).
        confidence: Of the bounds, two-sided, before the correction for several shapes.
        interleaved: Whether both sides were measured in one run; if not, the machine's drift is in the ratio.
        shapes: The verdict of each shape.
        figures: What was gated beside time.
        differences: What differs between the machines of two sample files; empty if nothing does.
        notes: What the reader must know to trust this, or not to: one sentence each, with what to do.
    """

    base: str
    head: str
    verdict: Verdict
    max_regression: float
    confidence: float
    interleaved: bool
    shapes: tuple[ShapeVerdict, ...]
    figures: tuple[FigureVerdict, ...] = ()
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether neither time nor a figure regressed, and the time was decided."""
        return self.verdict in {"faster", "same"} and all(figure.ok for figure in self.figures)

    @property
    def exit_code(self) -> int:
        """0 passes, 6 regression (of time or of a figure), 7 inconclusive."""
        if self.verdict == "slower" or not all(figure.ok for figure in self.figures):
            return 6
        return 7 if self.verdict == "inconclusive" else 0
