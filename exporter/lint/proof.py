"""Does a rewritten graph still answer, and no worse than before?

In: the file before and after. Out: a cosine and a size for every output and shape, or ParityFailure. The reference is
the graph's meaning: what it computes when no activation is rounded, each held to its range. The new graph must come as
near to that as the old one did; where only exact rules applied, it must equal the old one as well. The reference is
made by rewriting too: an old graph far from it, where the new one is next to it, says that it may be wrong. Random
inputs, ONNX Runtime on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.lint.probe import Feeds
from exporter.tolerances import read_tolerance
from runtimes.errors import CorruptArtifact, DataError, ParityFailure, UnsupportedModel
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.parity import compare, cosine, require
from runtimes.protocol import Tensors

#: A rewritten graph may be further from the float meaning by this much cosine: what rounding on another grid changes.
ALLOWED_LOSS = 1e-3
#: A rewritten graph's output may be larger or smaller than the float meaning by this factor, or as the old one was:
#: rounding on another grid changes directions before it changes sizes.
ALLOWED_SIZE = 1.1
#: Rounding alone has not been seen to take a cosine below the first where a rewriting brings it above the second,
#: but for masks. A clamp or a scale that the rewriting lost does that.
SUSPECT = (0.9, 0.999)
#: Nor to halve or double a size.
SUSPECT_SIZE = 2.0
# Each Q/DQ pair computed as written. Fused, ONNX Runtime's integers saturate on CPUs without VNNI.
_AS_WRITTEN = OrtOptions(disabled_optimizers=("QDQSelectorActionTransformer",))
# What ONNX Runtime says of a graph that it does not take.
_REFUSED = (UnsupportedModel, CorruptArtifact, DataError)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputProof:
    """Cosine to the graph without rounded activations, before and after the rewriting; 1 is the same direction.

    Taken where all are finite; infinities must be the same. NaN before: ONNX Runtime does not load that graph, or it
    answers NaN. ``size_before`` and ``size_after``: the norm as a multiple of the reference's.
    """

    output: str
    shape: tuple[int, ...]
    before: float
    after: float
    size_before: float
    size_after: float


def prove(
    before: Path,
    after: Path,
    meaning: Path,
    batches: Sequence[Feeds],
    *,
    exact: bool,
    masked: bool,
    allowed_loss: float,
) -> tuple[OutputProof, ...]:
    """Run the three graphs on the same inputs and compare.

    Args:
        before: The graph as it was.
        after: The rewritten one.
        meaning: What it computes without rounded activations.
        batches: Inputs for each run.
        exact: ``after`` must equal ``before``.
        masked: The range of a mask was taken out: ``before`` may have rounded everything to zero.
        allowed_loss: How much cosine to ``meaning`` may be lost.

    Raises:
        ParityFailure: ``after`` is further from the meaning by more than ``allowed_loss``, or of another size or type,
            or answers NaN; or ``before`` is so far from the meaning that this may be wrong.
        UnsupportedModel: ONNX Runtime cannot run the rewritten graph, so nothing can be said about it.
    """
    given = _try_answers(before, batches)
    wanted = _require_answers(meaning, batches, was_refused=given is None)
    found = _require_answers(after, batches, was_refused=given is None)
    rows: list[OutputProof] = []
    for number, reference in enumerate(wanted):
        old = given[number] if given is not None else None
        if old is not None:
            _require_types(old, found[number])
        # A graph that does not answer, or with NaN, has nothing that the new one could equal.
        numbers = {} if old is None else _keep_numbers(old)
        if exact and numbers and _is_finite(numbers):
            require(compare(numbers, _keep_numbers(found[number]), read_tolerance("lint-exact")))
        rows += [_compare(name, old, found[number], value) for name, value in reference.items()]
    _require(rows, allowed_loss)
    if not masked:
        _require_reference(rows, allowed_loss)
    return tuple(rows)


def _answer(path: Path, batches: Sequence[Feeds]) -> list[Tensors]:
    with closing(OnnxRuntime(_AS_WRITTEN).open(describe_onnx(path))) as session:
        return [session.run(feeds) for feeds in batches]


def _require_answers(path: Path, batches: Sequence[Feeds], *, was_refused: bool) -> list[Tensors]:
    try:
        return _answer(path, batches)
    except _REFUSED as error:
        graph = "the graph, rewritten or not" if was_refused else "the rewritten graph"
        cure = "mend what the other findings name"
        if was_refused and isinstance(error, DataError):
            cure = "fix the shapes of its inputs (python -m onnxruntime.tools.make_dynamic_shape_fixed)"
        what = f"nothing can be proved, as ONNX Runtime does not run {graph}: {error.what}"
        raise UnsupportedModel(what, where=error.where, cure=f"{cure}, and run --fix again") from error


def _try_answers(path: Path, batches: Sequence[Feeds]) -> list[Tensors] | None:
    try:
        return _answer(path, batches)
    except _REFUSED:  # it may be what the rewriting mends: a graph that no runtime takes
        return None


def _keep_numbers(answers: Tensors) -> dict[str, NDArray[np.generic]]:
    return {name: value for name, value in answers.items() if not _is_text(value)}


def _is_text(value: NDArray[np.generic]) -> bool:
    return value.dtype.kind in "OSU"


def _is_finite(answers: Tensors) -> bool:
    return all(bool(np.isfinite(value.astype(np.float64)).all()) for value in answers.values())


def _compare(name: str, old: Tensors | None, new: Tensors, wanted: NDArray[np.generic]) -> OutputProof:
    before, size_before = (math.nan, math.nan) if old is None else _judge(old[name], wanted)
    after, size_after = _judge(new[name], wanted)
    return OutputProof(
        output=name, shape=wanted.shape, before=before, after=after, size_before=size_before, size_after=size_after
    )


def _judge(given: NDArray[np.generic], wanted: NDArray[np.generic]) -> tuple[float, float]:
    """Return (cosine, size as a multiple); NaN where something is not finite that should be, or the other way round."""
    if _is_text(wanted):
        return float(np.array_equal(given, wanted)), 1.0
    answer, reference = given.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(reference)
    if answer.shape != reference.shape or not np.array_equal(np.isfinite(answer), finite):
        return math.nan, math.nan
    if not np.array_equal(answer[~finite], reference[~finite]):
        return math.nan, math.nan
    ours, theirs = float(np.linalg.norm(answer[finite])), float(np.linalg.norm(reference[finite]))
    size = ours / theirs if theirs else 1.0 if not ours else math.inf
    return cosine(answer[finite], reference[finite]), size


def _require_types(old: Tensors, new: Tensors) -> None:
    for name, value in old.items():
        if new[name].dtype != value.dtype:
            raise ParityFailure(
                f"rewriting turns an output of {value.dtype} into {new[name].dtype}", where=name, cure="report it"
            )


def _require(rows: Sequence[OutputProof], allowed_loss: float) -> None:
    for row in rows:
        if not math.isfinite(row.after):
            raise ParityFailure(
                "the rewritten graph answers NaN" + ("" if math.isfinite(row.before) else ", as the one before it did"),
                where=row.output,
                cure="quantise the float model again; `stepdown lint` names scales that are no numbers",
            )
    worst = max(rows, key=_find_loss)
    lost = _find_loss(worst)
    if lost > allowed_loss:
        raise ParityFailure(
            f"rewriting takes the cosine to the float graph from {worst.before:.4f} to {worst.after:.4f}",
            where=worst.output,
            cure=f"quantise the float model again, for this target; {_accept(lost)}",
        )
    for row in rows:
        excess = _find_factor(row.size_after) - max(ALLOWED_SIZE, _find_factor(row.size_before))
        if excess > allowed_loss:
            raise ParityFailure(
                f"rewriting makes the answers {row.size_after:.2f} times as large as the float graph's",
                where=row.output,
                cure=f"quantise the float model again, for this target; {_accept(excess)}",
            )


def _require_reference(rows: Sequence[OutputProof], allowed_loss: float) -> None:
    """Refuse where the old graph says that the reference may be wrong."""
    for row in rows:
        is_far = row.before < SUSPECT[0] and row.after > SUSPECT[1]
        factor = _find_factor(row.size_before / row.size_after) if row.size_after else 1.0
        change = 1 - row.before if is_far else factor - 1
        if change > allowed_loss and (is_far or factor > SUSPECT_SIZE):
            raise ParityFailure(
                f"the graph as it is has a cosine of {row.before:.4f} and {row.size_before:.2f} times the size of what "
                "the rewritten one is next to: more than rounding explains",
                where=row.output,
                cure=f"compare both with the float model; {_accept(change)}",
            )


def _accept(change: float) -> str:
    return f"or accept it with --allow-loss {math.ceil(change * 1000) / 1000}"


def _find_factor(size: float) -> float:
    """By how much answers are larger or smaller; 1 where there are none."""
    return max(size, 1 / size) if math.isfinite(size) and size > 0 else 1.0


def _find_loss(row: OutputProof) -> float:
    """A graph that gives no numbers has nothing to be compared with: then the new one must give some."""
    return (row.before if math.isfinite(row.before) else 0.0) - row.after
