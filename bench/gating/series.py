"""One series of times for each shape of a history: of one subject, on one machine, relative to a reference if it can.

In: recordings, the oldest first. Out: :class:`Series`. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.gating.files import Side
from bench.machine.differences import list_differences
from bench.recordings.recording import Recording, SubjectRecord
from bench.timing.samples import Samples
from runtimes.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One shape: the entries that have it, their times in ns, and what is compared (the same, or ratios)."""

    shape: str
    entries: tuple[Recording, ...]
    times_ns: tuple[float, ...]
    values: tuple[float, ...]


def choose_label(recording: Recording, place: str) -> str | None:
    """Return the one subject beside the reference; None where there is but one."""
    labels = [subject.label for subject in recording.subjects]
    if len(labels) > 2:
        places = ", ".join(f"{place}:{label}" for label in labels[1:])
        raise UsageError("the last entry holds several subjects", where=place, cure=f"name one: {places}")
    return labels[1] if len(labels) == 2 else None


def is_comparable(entry: Recording, side: Side) -> bool:
    """Return whether an entry timed the same subject on the same machine, beside the same reference if there is one."""
    if not any(timing.label == side.label for timing in entry.timings):
        return False
    ours = find_subject(entry, side.label)
    if (ours.runtime, ours.device) != (side.subject.runtime, side.subject.device):
        return False
    if list_differences(entry.machine, side.recording.machine):
        return False
    return not is_relative(side) or _identify_reference(entry) == _identify_reference(side.recording)


def is_relative(side: Side) -> bool:
    """Return whether there is a reference beside the subject, always the same file, that was timed."""
    reference = side.recording.subjects[0]
    return reference.label != side.label and reference.artifact_sha256 is not None and reference.failure is None


def _identify_reference(recording: Recording) -> tuple[str | None, ...]:
    reference = recording.subjects[0]
    return (reference.label, reference.runtime, reference.device, reference.artifact_sha256, reference.failure)


def find_subject(recording: Recording, label: str) -> SubjectRecord:
    """Return the subject of that label, which must be there."""
    return next(subject for subject in recording.subjects if subject.label == label)


def collect_series(entries: Sequence[Recording], side: Side, shape: str) -> Series:
    """Return the series of a shape, over the entries that have it."""
    kept, times_ns, values = [], [], []
    for entry in entries:
        ours = entry.samples(side.label, shape)
        reference = entry.samples(entry.subjects[0].label, shape)
        if ours is None or (reference is None and is_relative(side)):
            continue
        kept.append(entry)
        times_ns.append(ours.median_ns())
        values.append(_compare_rounds(ours, reference) if reference and is_relative(side) else ours.median_ns())
    return Series(shape=shape, entries=tuple(kept), times_ns=tuple(times_ns), values=tuple(values))


def _compare_rounds(ours: Samples, reference: Samples) -> float:
    """Return the median over rounds of our time relative to the reference's: block ``i`` of both is of one round."""
    return median(a / b for a, b in zip(ours.block_medians_ns(), reference.block_medians_ns(), strict=False))
