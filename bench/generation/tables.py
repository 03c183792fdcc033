"""A measurement of generation as tables and as plain data for a file.

In: a :class:`~bench.generation.measure.GenerationRecording`. Out: rows, or a JSON document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.generation.measure import GenerationRecording, GenerationShape, GenerationTimes

HEADER = ("model", "first token ms", "tokens/s", "token p50 / p99 ms", "cache and work MB", "speed", "first token")


def list_rows(recording: GenerationRecording, shape: GenerationShape, base: str) -> list[list[str]]:
    """Return a row for each model at a shape, under :data:`HEADER`; the last two against ``base``, with their bound."""
    rows = []
    for label, times in recording.times[shape].items():
        steps, firsts = recording.compare_steps(shape, base, label), recording.compare_first(shape, base, label)
        ratios = [f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in (steps, firsts)]
        rows.append([label, *_show(times, shape), *(["1", "1"] if label == base else ratios)])
    return rows


def list_memory(recording: GenerationRecording) -> list[list[str]]:
    """Return (model, MB once loaded, MB at most) for each model."""
    return [
        [label, f"{loaded / 1e6:.0f}", f"{recording.peak_bytes[label] / 1e6:.0f}"]
        for label, loaded in recording.loaded_bytes.items()
    ]


def describe_generation(recording: GenerationRecording) -> dict[str, Any]:
    """Return the recording as a JSON document: every nanosecond, by shape and model."""
    return {
        "machine": dict(recording.machine),
        "loaded_bytes": dict(recording.loaded_bytes),
        "peak_bytes": dict(recording.peak_bytes),
        "shapes": [
            {**asdict(shape), "models": {label: _describe(times, shape) for label, times in found.items()}}
            for shape, found in recording.times.items()
        ],
    }


def _show(times: GenerationTimes, shape: GenerationShape) -> Sequence[str]:
    step = times.step
    return (
        f"{times.first.median_ns() / 1e6:.1f}",
        f"{times.tokens_per_second(shape):.1f}",
        f"{step.quantile_ns(0.5) / 1e6:.2f} / {step.quantile_ns(0.99) / 1e6:.2f}",
        f"{times.held_bytes / 1e6:.0f}",
    )


def _describe(times: GenerationTimes, shape: GenerationShape) -> dict[str, Any]:
    return {
        "first_ns": [list(block) for block in times.first.ns],
        "step_ns": [list(block) for block in times.step.ns],
        "warmup_ns": list(times.step.warmup_ns),
        "held_bytes": times.held_bytes,
        "tokens_per_second": times.tokens_per_second(shape),
    }
