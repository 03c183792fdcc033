"""The figures of a recording that people read: quantiles, ratios to the reference, throughput.

In: a recording. Out: rows. Computed anew from raw samples whenever asked. Needs numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.recordings.recording import Recording, Throughput
from bench.timing.compare import Comparison, compare
from bench.timing.samples import Samples

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One subject at one shape.

    Attributes:
        label: The subject.
        shape: The shape, ``8x128``.
        p50_ns: The duration that half of all runs did not exceed; ``p90_ns`` and ``p99_ns`` likewise.
        p90_ns: See above.
        p99_ns: See above.
        runs: How many runs there were.
        rounds: How many blocks they came in.
        speed: How many times as fast as the reference, with a 95 % bound; None for the reference itself, or without it.
        runs_per_s: By number of concurrent streams. One stream is what the timed runs give, unless it was measured.
    """

    label: str
    shape: str
    p50_ns: float
    p90_ns: float
    p99_ns: float
    runs: int
    rounds: int
    speed: Comparison | None
    runs_per_s: dict[int, float]


def compare_with_reference(recording: Recording, label: str, shape: str) -> Comparison | None:
    """Compare a subject with the first one; None for the first itself, and where not both were timed.

    Raises:
        DataError: their blocks do not pair.
    """
    reference = recording.subjects[0].label
    base, head = recording.samples(reference, shape), recording.samples(label, shape)
    if label == reference or base is None or head is None:
        return None
    return compare(base, head, confidence=CONFIDENCE)


def summarise(recording: Recording) -> tuple[Row, ...]:
    """Return a row for every subject and shape that was timed, shape by shape within a subject."""
    rows = []
    for subject in recording.subjects:
        for shape in recording.shapes():
            samples = recording.samples(subject.label, shape)
            if samples is None:
                continue
            speed = compare_with_reference(recording, subject.label, shape)
            throughput = [one for one in subject.throughput if one.shape == shape]
            rows.append(_make_row(samples, shape, speed, throughput))
    return tuple(rows)


def _make_row(samples: Samples, shape: str, speed: Comparison | None, throughput: list[Throughput]) -> Row:
    runs = sum(map(len, samples.ns))
    one_stream = runs / sum(map(sum, samples.ns)) * 1e9
    return Row(
        label=samples.label,
        shape=shape,
        p50_ns=samples.quantile_ns(0.5),
        p90_ns=samples.quantile_ns(0.9),
        p99_ns=samples.quantile_ns(0.99),
        runs=runs,
        rounds=len(samples.ns),
        speed=speed,
        runs_per_s={1: one_stream, **{one.streams: one.runs / one.ns * 1e9 for one in throughput}},
    )
