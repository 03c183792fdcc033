"""Do two forms of one model answer alike? Every metric, in float64, for every output, and one verdict.

In: two mappings of output name to array, and a tolerance. Out: a :class:`ParityReport`, plain data.
Must not import a runtime, nor torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import ParityFailure
from runtimes.protocol import Tensors

Verdict = Literal["pass", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What may differ, and why that much.

    A value may be off by ``atol + rtol * abs(expected)``; where ``min_cosine`` is given, the cosine of each
    flattened output with its reference must reach it too. ``reason`` says where the numbers come from.
    """

    atol: float
    rtol: float
    min_cosine: float | None = None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """How one output compares. Metrics cover the positions where both sides are finite.

    Attributes:
        name: The output.
        shape: Its shape in the reference.
        max_abs: Largest absolute difference.
        mean_abs: Mean absolute difference.
        sqnr_db: Signal to noise, ``10 log10(sum(expected**2) / sum(difference**2))``; infinite when they are equal.
        cosine: Of the flattened arrays; 1 where both are all zero, 0 where one is.
        top1: Share of rows (last axis) with the same largest entry; 1 for an output without a last axis to rank.
        worst: Index of the position that exceeds its bound most (or comes nearest to it); None when empty.
        expected: The reference's value there, NaN when empty.
        actual: The other value there, NaN when empty.
        non_finite: Positions where NaN or infinity stands on one side and not, alike, on the other.
        verdict: ``pass`` or ``fail``.
        message: What is wrong and where, or a summary.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    mean_abs: float
    sqnr_db: float
    cosine: float
    top1: float
    worst: tuple[int, ...] | None
    expected: float
    actual: float
    non_finite: int
    verdict: Verdict
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The comparison of all outputs; ``message`` names every output that failed and its worst position."""

    outputs: tuple[OutputParity, ...]
    tolerance: Tolerance
    verdict: Verdict
    message: str


def compare(expected: Tensors, actual: Tensors, tolerance: Tolerance) -> ParityReport:
    """Compare outputs by name.

    Args:
        expected: The reference, arrays of any numeric or boolean dtype and any shape.
        actual: What is judged. An output missing here, one the reference lacks, and another shape are failures.
        tolerance: The bound. NaN is equal to NaN and an infinity to the same infinity; anything else that is
            not finite on one side only fails whatever the tolerance.

    Returns:
        One row per reference output that can be compared, and the verdict over all of them.
    """
    problems: list[str] = []
    rows: list[OutputParity] = []
    for name, reference in expected.items():
        if name not in actual:
            problems.append(f"output '{name}' is missing; there are: {', '.join(sorted(actual)) or 'none'}")
            continue
        given = actual[name]
        if np.shape(given) != np.shape(reference):
            problems.append(f"output '{name}' has shape {np.shape(given)}, expected {np.shape(reference)}")
            continue
        row = _compare_output(name, np.asarray(reference), np.asarray(given), tolerance)
        rows.append(row)
        if row.verdict == "fail":
            problems.append(row.message)
    problems += [f"output '{name}' is not in the reference" for name in actual if name not in expected]
    if not expected:
        problems.append("the reference has no outputs, so nothing was compared")
    message = "; ".join(problems) if problems else "; ".join(row.message for row in rows)
    return ParityReport(
        outputs=tuple(rows), tolerance=tolerance, verdict="fail" if problems else "pass", message=message
    )


def require(report: ParityReport) -> None:
    """Do nothing for a report that passed.

    Raises:
        ParityFailure: it failed; the message names the outputs and their worst positions.
    """
    if report.verdict == "fail":
        raise ParityFailure(
            report.message,
            cure=f"report it, or relax the tolerance (atol={report.tolerance.atol:g}, rtol={report.tolerance.rtol:g}, "
            f"min_cosine={report.tolerance.min_cosine}: {report.tolerance.reason})",
        )


def cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Cosine of two flattened float64 arrays; 1 where both are all zero, 0 where only one is."""
    a, b = _normalised(left.ravel()), _normalised(right.ravel())
    if not a.any() and not b.any():
        return 1.0
    # Rounding may put it one step outside of [-1, 1].
    return float(np.clip(a @ b, -1.0, 1.0))


def _normalised(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    # Scaled by the largest entry first: the square of a float32 near its limits does not overflow float64,
    # but that of a float64 would.
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0.0:
        return vector
    scaled: NDArray[np.float64] = vector / largest
    return scaled / math.sqrt(float(scaled @ scaled))


def _compare_output(
    name: str, reference: NDArray[np.generic], given: NDArray[np.generic], tolerance: Tolerance
) -> OutputParity:
    want, got = reference.astype(np.float64), given.astype(np.float64)
    finite = np.isfinite(want) & np.isfinite(got)
    alike = (np.isnan(want) & np.isnan(got)) | (np.isinf(want) & (want == got))
    broken = ~finite & ~alike
    left, right = np.where(finite, want, 0.0), np.where(finite, got, 0.0)
    difference = np.abs(left - right)
    excess = np.where(broken, np.inf, difference - (tolerance.atol + tolerance.rtol * np.abs(left)))
    # The worst position is chosen among those that could be wrong: an equal pair of NaN is not one of them.
    excess = np.where(alike, -np.inf, excess)
    similarity = cosine(left, right)
    worst = _locate_max(excess)
    outside = int(np.count_nonzero(excess > 0))
    too_far_apart = tolerance.min_cosine is not None and similarity < tolerance.min_cosine
    message = _describe(name, want, got, worst, outside, int(broken.sum()), similarity, tolerance)
    return OutputParity(
        name=name,
        shape=reference.shape,
        max_abs=float(difference.max(initial=0.0)),
        mean_abs=float(difference[finite].mean()) if finite.any() else 0.0,
        sqnr_db=_sqnr_db(left, difference),
        cosine=similarity,
        top1=_top1(want, got),
        worst=worst,
        expected=math.nan if worst is None else float(want[worst]),
        actual=math.nan if worst is None else float(got[worst]),
        non_finite=int(broken.sum()),
        verdict="fail" if outside or too_far_apart else "pass",
        message=message,
    )


def _locate_max(values: NDArray[np.float64]) -> tuple[int, ...] | None:
    if values.size == 0:
        return None
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), values.shape))


def _sqnr_db(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    noise_power, signal_power = float(np.sum(noise**2)), float(np.sum(signal**2))
    if noise_power == 0.0:
        return math.inf
    return -math.inf if signal_power == 0.0 else 10.0 * math.log10(signal_power / noise_power)


def _top1(want: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    if want.ndim == 0 or want.size == 0:
        return 1.0
    return float(np.mean(want.argmax(axis=-1) == got.argmax(axis=-1)))


def _describe(
    name: str,
    want: NDArray[np.float64],
    got: NDArray[np.float64],
    worst: tuple[int, ...] | None,
    outside: int,
    broken: int,
    similarity: float,
    tolerance: Tolerance,
) -> str:
    if worst is None:
        return f"output '{name}' is empty on both sides"
    spot = f"worst at {worst}: expected {want[worst]:.6g}, got {got[worst]:.6g}"
    if broken:
        return f"output '{name}' differs in NaN or infinity at {broken} of {want.size} positions, {spot}"
    if outside:
        bound = tolerance.atol + tolerance.rtol * abs(float(want[worst]))
        return f"output '{name}' is off at {outside} of {want.size} positions (allowed there {bound:.3g}), {spot}"
    if tolerance.min_cosine is not None and similarity < tolerance.min_cosine:
        return f"output '{name}' has cosine {similarity:.6f}, below {tolerance.min_cosine:g}, {spot}"
    return f"output '{name}' agrees (cosine {similarity:.6f}), {spot}"
