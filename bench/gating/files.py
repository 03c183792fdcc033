"""Judges two sample files: are they comparable at all, did both models answer alike, and then the gate's rule.

In: places of sample files (``samples.json``, or ``samples.json:label`` where it holds several subjects). Out: a
:class:`~bench.gating.verdict.GateResult`. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.gating.rule import GateLimits, decide, judge_figures, judge_times
from bench.gating.verdict import GateResult, ShapeVerdict
from bench.machine.differences import list_differences
from bench.measuring.answers import make_tolerance, require_alike, restore_kept
from bench.recordings.recording import Recording, SubjectRecord, read_recording
from bench.timing.samples import Samples
from runtimes.errors import Inconclusive, SubjectFailed, UsageError

_MODELS = {".onnx", ".pt2", ".plan", ".gguf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One subject of a recording; ``place`` names it in messages as the user did."""

    recording: Recording
    subject: SubjectRecord
    place: str

    @property
    def label(self) -> str:
        """The subject's name."""
        return self.subject.label

    def shapes(self) -> list[str]:
        """Every shape at which it was timed, in the order measured."""
        return [timing.shape for timing in self.recording.timings if timing.label == self.label]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparability:
    """What two sides must have in common.

    Attributes:
        shapes: Judge only these; empty judges every shape that both have.
        min_cosine: How alike kept outputs must be, where both files hold those of the same inputs.
        allow_different_machine: Judge although the machines differ; the answer is then never "same".
    """

    shapes: tuple[str, ...] = ()
    min_cosine: float = 0.99
    allow_different_machine: bool = False


def is_sample_file(text: str) -> bool:
    """Return whether ``text`` means a sample file, there or not, rather than a model."""
    path, _ = split_place(text)
    return path.suffix not in _MODELS and (path.is_file() or path.suffix == ".json")


def split_place(text: str) -> tuple[Path, str | None]:
    """Split ``FILE:LABEL``. A colon may be part of either: the longest beginning that is a file is the file."""
    if Path(text).is_file():
        return Path(text), None
    ends = [index for index, sign in enumerate(text) if sign == ":"]
    for end in reversed(ends):
        if Path(text[:end]).is_file():
            return Path(text[:end]), text[end + 1 :]
    path, colon, label = text.rpartition(":")
    return (Path(path), label) if colon and path.endswith(".json") else (Path(text), None)


def read_side(text: str) -> Side:
    """Read one side of the comparison.

    Raises:
        CorruptArtifact: the file is empty, truncated, damaged or of another schema.
        UsageError: there is no such file, or it holds several subjects and none is named, or not the one that is.
        SubjectFailed: the subject was not measured; the message says why.
    """
    path, label = split_place(text)
    recording = read_recording(path)
    return make_side(recording, label, place=str(path))


def make_side(recording: Recording, label: str | None, *, place: str) -> Side:
    """Return the named subject, or the only one. Raises what :func:`read_side` raises for what it lacks."""
    labels = [subject.label for subject in recording.subjects]
    if label is None and len(labels) > 1:
        raise UsageError(
            "the file holds several subjects", where=place, cure=f"name one: {_list_places(place, labels)}"
        )
    found = next((subject for subject in recording.subjects if label in {None, subject.label}), None)
    if found is None:
        raise UsageError(
            f"no subject is called {label!r}", where=place, cure=f"name one: {_list_places(place, labels)}"
        )
    is_timed = any(timing.label == found.label for timing in recording.timings)
    if found.failure is not None and not is_timed:
        raise SubjectFailed(
            f"{found.label!r} was not measured: {found.failure}", where=place, cure="mend what failed and measure again"
        )
    return Side(recording=recording, subject=found, place=place)


def judge_sides(base: Side, head: Side, limits: GateLimits, comparability: Comparability) -> GateResult:
    """Judge head against base.

    Timings of one run pair by round; those of two runs are compared as wholes, and a note says what that leaves open.

    Raises:
        UsageError: both sides are the same subject of the same run, or there is no common shape, or not the asked one.
        Inconclusive: the machines differ and that is not allowed.
        ParityFailure: the models answer differently; nothing is said of their times.
        DataError: rounds of one run do not pair.
    """
    together = base.recording.run == head.recording.run
    if together and base.label == head.label:
        raise UsageError("base and head are the same samples", where=head.place, cure="name two subjects, FILE:LABEL")
    shapes = _choose_shapes(base, head, comparability.shapes)
    differences = list_differences(base.recording.machine, head.recording.machine)
    if differences and not comparability.allow_different_machine:
        raise Inconclusive(
            f"base and head were not measured on the same machine: {'; '.join(differences)}",
            where=f"{base.place}, {head.place}",
            cure="give both models to one `stepdown gate`, or pass --allow-different-machine",
        )
    compared = _require_alike(base, head, shapes, comparability.min_cosine)
    verdicts = judge_times({shape: _pair(base, head, shape) for shape in shapes}, limits, paired=together)
    if differences:
        verdicts = tuple(map(_doubt_same, verdicts))
    return GateResult(
        base=base.label,
        head=head.label,
        verdict=decide(verdicts),
        max_regression=limits.max_regression,
        confidence=limits.confidence,
        interleaved=together,
        shapes=verdicts,
        figures=judge_figures(base.subject.figures, head.subject.figures, limits),
        differences=differences,
        notes=(
            *_note_shapes(base, head, shapes),
            *_note_answers(shapes, compared),
            *_note_runs(together, differences),
            *_note_unstable(base, head),
            *_note_failures(base, head),
        ),
    )


def _choose_shapes(base: Side, head: Side, wanted: Sequence[str]) -> tuple[str, ...]:
    ours, theirs = base.shapes(), head.shapes()
    missing = [shape for shape in wanted if shape not in ours or shape not in theirs]
    common = tuple(shape for shape in ours if shape in theirs and (not wanted or shape in wanted))
    if missing or not common:
        what = f"base and head do not both have {', '.join(missing)}" if missing else "base and head share no shape"
        raise UsageError(
            f"{what}: base has {', '.join(ours) or 'none'}, head has {', '.join(theirs) or 'none'}",
            where=f"{base.place}, {head.place}",
            cure="measure both at the same shapes, `stepdown bench --shape`",
        )
    return common


def _pair(base: Side, head: Side, shape: str) -> tuple[Samples, Samples]:
    ours, theirs = base.recording.samples(base.label, shape), head.recording.samples(head.label, shape)
    assert ours is not None
    assert theirs is not None
    return ours, theirs


def _require_alike(base: Side, head: Side, shapes: Sequence[str], min_cosine: float) -> tuple[str, ...]:
    """Compare the kept outputs where both had the same inputs; return the shapes at which that was possible."""
    compared = tuple(
        shape
        for shape in shapes
        if shape in base.subject.answers
        and shape in head.subject.answers
        and base.recording.feeds.get(shape) is not None
        and base.recording.feeds.get(shape) == head.recording.feeds.get(shape)
    )
    require_alike(
        {shape: restore_kept(base.subject.answers[shape]) for shape in compared},
        {shape: restore_kept(head.subject.answers[shape]) for shape in compared},
        make_tolerance(min_cosine),
    )
    return compared


def _doubt_same(shape: ShapeVerdict) -> ShapeVerdict:
    return replace(shape, verdict="inconclusive") if shape.verdict == "same" else shape


def _note_shapes(base: Side, head: Side, judged: Sequence[str]) -> list[str]:
    alone = sorted({*base.shapes()} ^ {*head.shapes()})
    return [f"not judged, since only one side has it: {', '.join(alone)}"] if alone and judged else []


def _note_answers(shapes: Sequence[str], compared: Sequence[str]) -> list[str]:
    left = [shape for shape in shapes if shape not in compared]
    if not left:
        return []
    return [
        f"whether both models answer alike was not checked at {', '.join(left)}: the files hold no outputs of the same "
        "inputs there; give the models themselves to check it"
    ]


def _note_runs(together: bool, differences: Sequence[str]) -> list[str]:
    if differences:
        return ["the machines differ: what the change of machine did is in the ratio, so this can never answer same"]
    if together:
        return []
    return [
        "base and head were measured in two runs: what the machine did between them is in the ratio and in no bound; "
        "give both models to one `stepdown gate` to run them interleaved"
    ]


def _note_unstable(base: Side, head: Side) -> list[str]:
    recordings = {side.recording.run: side for side in (base, head)}
    return [
        f"unstable ({side.place}): {why}" for side in recordings.values() for why in side.recording.conditions.unstable
    ]


def _list_places(place: str, labels: Sequence[str]) -> str:
    return ", ".join(f"{place}:{label}" for label in labels)


def _note_failures(base: Side, head: Side) -> list[str]:
    """Say what else failed for a subject whose times are there all the same."""
    return [
        f"{side.label} was timed, but not all else could be measured of it: {side.subject.failure}"
        for side in (base, head)
        if side.subject.failure is not None
    ]
