"""What a report says first, in one sentence. In: a recording, its ratios, a gate's result. Out: text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from bench.gating.verdict import GateResult
from bench.recordings.recording import Recording
from bench.report.ratios import Ratio
from bench.report.units import format_duration, format_share


def write_headline(recording: Recording, ratios: Sequence[Ratio], gate: GateResult | None) -> str:
    """Return the finding: the gate's verdict, else the fastest subject, else how long the only one takes."""
    if gate is not None:
        return _tell_verdict(gate)
    if ratios:
        return _tell_fastest(ratios, recording.subjects[0].label)
    if not recording.timings:
        return "Nothing could be timed"
    timing = recording.timings[0]
    samples = recording.samples(timing.label, timing.shape)
    assert samples is not None
    return f"{timing.label} takes {format_duration(samples.quantile_ns(0.5))} at {timing.shape}"


def format_limit(gate: GateResult) -> str:
    """Return the gate's limit as it was given: ``5 %``, ``2.5 %``."""
    return f"{gate.max_regression * 100:g}\N{NARROW NO-BREAK SPACE}%"


def _tell_verdict(gate: GateResult) -> str:
    match gate.verdict:
        case "slower":
            worst = max(1 / one.ratio - 1 for one in gate.shapes if one.verdict == "slower")
            return f"{gate.head} is slower: it takes {format_share(worst)} longer than {gate.base}"
        case "inconclusive":
            return f"{gate.head} against {gate.base}: inconclusive"
        case "faster" | "same" if not gate.passes:
            grown = ", ".join(one.name.removesuffix("_bytes").replace("_", " ") for one in gate.figures if not one.ok)
            return f"{gate.head} is not slower than {gate.base}, but grew: {grown}"
        case "faster":
            return f"{gate.head} is faster than {gate.base}"
        case "same":
            return f"{gate.head} is as fast as {gate.base}, within {format_limit(gate)}"


def _tell_fastest(ratios: Sequence[Ratio], reference: str) -> str:
    by_label = {label: [one for one in ratios if one.label == label] for label in {one.label for one in ratios}}
    faster = {label: mine for label, mine in by_label.items() if all(one.verdict == "faster" for one in mine)}
    if faster:
        label = max(sorted(faster), key=lambda name: fmean(math.log(one.ratio) for one in faster[name]))
        times = sorted(one.ratio for one in faster[label])
        low, high = (f"{end:.1f}" if end >= 1.1 else f"{end:.2f}" for end in (times[0], times[-1]))
        span = low if low == high else f"{low} to {high}"
        return f"{label} is {span} times as fast as {reference}"
    if all(one.verdict == "slower" for one in ratios):
        return f"Nothing is as fast as {reference}"
    if all(one.verdict == "inconclusive" for one in ratios):
        return f"No difference to {reference} was found"
    return f"Nothing is faster than {reference} at every shape"
