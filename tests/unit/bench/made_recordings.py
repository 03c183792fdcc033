"""Recordings with the timings that a test wants."""

import random
from collections.abc import Mapping, Sequence

from bench.recordings.recording import Figures, Recording, SubjectRecord, Timing

MACHINE = {"cpu": "x", "cores": 2, "arch": "x86_64", "threads": None, "versions": {"onnxruntime": "1.24.0"}}


def make_blocks(
    level_ns: float, *, rounds: int = 30, noise: float = 0.002, seed: int = 0
) -> tuple[tuple[int, ...], ...]:
    """Blocks of three runs around a level."""
    random_ = random.Random(seed)
    return tuple(tuple(round(level_ns * random_.gauss(1, noise)) for _ in range(3)) for _ in range(rounds))


def make_recording(
    levels: Mapping[str, Mapping[str, float]],
    *,
    run: str = "run",
    figures: Mapping[str, Figures] | None = None,
    failures: Mapping[str, str] | None = None,
    noise: float = 0.002,
    rounds: int = 30,
    seed: int = 0,
    sha256: str = "ab",
    **more: object,
) -> Recording:
    """A recording of subjects with their level (ns) at each shape, interleaved."""
    figures, failures = figures or {}, failures or {}
    subjects = tuple(
        SubjectRecord(
            label=label,
            runtime="onnxruntime",
            device="cpu",
            model=f"{label}.onnx",
            artifact_sha256=sha256,
            figures=figures.get(label, Figures()),
            failure=failures.get(label),
        )
        for label in levels
    )
    timings = tuple(
        Timing(label=label, shape=shape, ns=make_blocks(ns, rounds=rounds, noise=noise, seed=seed + index))
        for index, (label, shapes) in enumerate(levels.items())
        for shape, ns in shapes.items()
    )
    given = {"machine": MACHINE, "started": "2026-11-22T04:00:00+00:00", **more}
    return Recording(run=run, subjects=subjects, timings=timings, **given)


def make_history(
    levels_ns: Sequence[float], *, reference: Sequence[float] | None = None, noise: float = 0.01, **more: object
) -> tuple[Recording, ...]:
    """One entry a level, each off by some noise; with a reference, both are off by the same."""
    random_ = random.Random(1)
    entries = []
    for index, level in enumerate(levels_ns):
        mood = random_.gauss(1, noise)
        levels = {"ref": {"1x8": reference[index] * mood}} if reference else {}
        levels["model"] = {"1x8": level * mood}
        entry = make_recording(
            levels,
            run=f"run{index}",
            seed=100 * index,
            commit=f"{index:040x}",
            **{"started": f"2026-11-{index + 1:02d}T04:00:00+00:00", **more},
        )
        entries.append(entry)
    return tuple(entries)
