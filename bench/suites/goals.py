"""What the encoder suite has to show, and whether it did: data and one function, so that a miss cannot be overlooked.

In: measured figures. Out: a row for each goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.measuring.quality import Agreement
from bench.timing.compare import Comparison

Verdict = Literal["met", "unsure", "missed"]

# Least speed against quantize_dynamic and against ONNX Runtime FP32. The latter were set on an AVX2 machine, where INT8
# doubles the peak at best; with VNNI or AMX they are easy.
AGAINST_DYNAMIC = {"1x16": 1.12, "1x128": 1.2, "8x128": 1.2}
AGAINST_FLOAT = {"1x16": 1.85, "1x128": 1.8, "8x128": 1.85}
# Where the CPU has it this peer computes in bfloat16: judged in a row of its own, so that neither hides the other.
BFLOAT16 = "openvino-default"
LONGEST_EXPORT_SECONDS = 90.0
LARGEST_BYTES = 23_500_000
LEAST_COSINE = Agreement(mean=0.993, minimum=0.988)
LARGEST_RANK_LOSS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Accuracy of one subject: embeddings against float's, Spearman with people on Lee and on wordsim353."""

    agreement: Agreement
    lee: float
    wordsim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One thing to show. ``verdict`` is ``unsure`` where a ratio reaches its goal and its bound does not."""

    name: str
    wanted: str
    measured: str
    verdict: Verdict


def judge_speed(ours: Mapping[str, Mapping[str, Comparison]]) -> tuple[Goal, ...]:
    """Judge our speed. ``ours`` maps a shape to our comparison with each peer, above 1 where we are faster."""
    goals = []
    for shape, peers in ours.items():
        for peer, wanted in (("dynamic", AGAINST_DYNAMIC.get(shape)), ("ort-fp32", AGAINST_FLOAT.get(shape))):
            if wanted is not None and peer in peers:
                goals.append(judge_ratio(f"speed against {peer} at {shape}", peers[peer], wanted))
        others = [peer for peer in peers if peer != BFLOAT16]
        nearest = min(others, key=lambda peer: peers[peer].ratio, default=None)
        if nearest is not None:
            goals.append(judge_ratio(f"faster than every peer at {shape} (nearest: {nearest})", peers[nearest], 1.0))
        if BFLOAT16 in peers:
            goals.append(judge_ratio(f"speed against {BFLOAT16} at {shape}", peers[BFLOAT16], 1.0))
    return tuple(goals)


def judge_quality(ours: Quality, reference: Quality, size_bytes: int) -> tuple[Goal, ...]:
    """Judge our accuracy and size."""
    rows = (
        ("embedding cosine, mean", ours.agreement.mean, LEAST_COSINE.mean),
        ("embedding cosine, minimum", ours.agreement.minimum, LEAST_COSINE.minimum),
        ("Lee Spearman", ours.lee, reference.lee - LARGEST_RANK_LOSS),
        ("wordsim353 Spearman", ours.wordsim, reference.wordsim - LARGEST_RANK_LOSS),
    )
    goals = [
        Goal(name=name, wanted=f">= {wanted:.4f}", measured=f"{value:.4f}", verdict=decide(value >= wanted))
        for name, value, wanted in rows
    ]
    size = Goal(
        name="size on disk",
        wanted=f"<= {LARGEST_BYTES / 1e6:.1f} MB",
        measured=f"{size_bytes / 1e6:.2f} MB",
        verdict=decide(size_bytes <= LARGEST_BYTES),
    )
    return (*goals, size)


def judge_cost(export_seconds: float | None, calibration_seconds: Mapping[str, float]) -> tuple[Goal, ...]:
    """Judge the time of an export (None: not made in this run) and of calibrating, by tool."""
    rows = [("export end to end", export_seconds, LONGEST_EXPORT_SECONDS)]
    if calibration_seconds:
        longest = calibration_seconds["onnxruntime percentile"]
        rows.append(("calibration, against onnxruntime percentile", calibration_seconds["stepdown"], longest))
    return tuple(
        Goal(name=name, wanted=f"<= {most:.1f} s", measured=f"{seconds:.1f} s", verdict=decide(seconds <= most))
        for name, seconds, most in rows
        if seconds is not None
    )


def judge_ratio(name: str, comparison: Comparison, wanted: float) -> Goal:
    """Judge a ratio by its value and its bound: met where the whole bound lies above."""
    verdict: Verdict = "missed" if comparison.ratio < wanted else "met" if comparison.low >= wanted else "unsure"
    return Goal(name=name, wanted=f">= {wanted:.2f}", measured=show_ratio(comparison), verdict=verdict)


def decide(holds: bool) -> Verdict:
    """Return the verdict on what is known for sure."""
    return "met" if holds else "missed"


def show_ratio(comparison: Comparison) -> str:
    """Write a ratio with its bound."""
    return f"{comparison.ratio:.2f} [{comparison.low:.2f}, {comparison.high:.2f}]"
