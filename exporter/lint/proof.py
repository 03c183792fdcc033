"""Does a rewritten graph still answer, and no worse than before?

In: the file before and after. Out: a cosine for every output and shape, or ParityFailure. The reference is the graph's
meaning: what it computes when no activation is rounded. The new graph must come as near to that as the old one did;
where only exact rules applied, it must equal the old one as well. Random inputs, ONNX Runtime on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.probe_feeds import make_feeds, usable_shapes
from exporter.tolerances import read_tolerance
from runtimes.artifact import Artifact
from runtimes.errors import CorruptArtifact, DataError, ParityFailure, UnsupportedModel
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.parity import compare, cosine, require
from runtimes.protocol import Tensors

SHAPES = ((1, 16), (3, 9))
#: A rewritten graph may be further from the float meaning by this much cosine: what rounding on another grid changes.
ALLOWED_LOSS = 1e-3
#: Token ids below this are in every vocabulary met.
USUAL_VOCABULARY = 1000
# Each Q/DQ pair computed as written. Fused, ONNX Runtime's integers saturate on CPUs without VNNI.
_AS_WRITTEN = OrtOptions(disabled_optimizers=("QDQSelectorActionTransformer",))
# What ONNX Runtime says of a graph that it does not take.
_REFUSED = (UnsupportedModel, CorruptArtifact, DataError)

Feeds = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputProof:
    """Cosine to the graph without rounded activations, before and after the rewriting; 1 is the same direction.

    NaN before: ONNX Runtime does not load that graph, or it answers NaN.
    """

    output: str
    shape: tuple[int, ...]
    before: float
    after: float


def prove(before: Path, after: Path, meaning: Path, *, exact: bool, allowed_loss: float) -> tuple[OutputProof, ...]:
    """Run the three graphs on the same random inputs and compare; ``exact``: ``after`` must equal ``before``.

    Raises:
        ParityFailure: ``after`` is further from the meaning by more than ``allowed_loss``, or answers NaN.
        UnsupportedModel: ONNX Runtime cannot run the rewritten graph, so nothing can be said about it.
    """
    batches = _make_batches(describe_onnx(after))
    wanted, found = _require_answers(meaning, batches), _require_answers(after, batches)
    given = _try_answers(before, batches)
    rows: list[OutputProof] = []
    for number, reference in enumerate(wanted):
        old = given[number] if given is not None else None
        # A graph that does not answer, or with NaN, has nothing that the new one could equal.
        if exact and old is not None and _is_finite(old):
            require(compare(old, found[number], read_tolerance("lint-exact")))
        rows += [_compare(name, old, found[number], value) for name, value in reference.items()]
    _require(rows, allowed_loss)
    return tuple(rows)


def _make_batches(described: Artifact) -> list[Feeds]:
    shapes = usable_shapes(described.inputs, SHAPES)
    return [make_feeds(described.inputs, shape, vocabulary=USUAL_VOCABULARY, seed=0) for shape in shapes]


def _answer(path: Path, batches: Sequence[Feeds]) -> list[Tensors]:
    with closing(OnnxRuntime(_AS_WRITTEN).open(describe_onnx(path))) as session:
        return [session.run(feeds) for feeds in batches]


def _require_answers(path: Path, batches: Sequence[Feeds]) -> list[Tensors]:
    try:
        return _answer(path, batches)
    except _REFUSED as error:
        raise UnsupportedModel(
            f"nothing can be proved about the rewritten graph, as ONNX Runtime does not run it: {error.what}",
            where=error.where,
            cure="mend what the other findings name, and run --fix again",
        ) from error


def _try_answers(path: Path, batches: Sequence[Feeds]) -> list[Tensors] | None:
    try:
        return _answer(path, batches)
    except _REFUSED:  # it may be what the rewriting mends: a graph that no runtime takes
        return None


def _is_finite(answers: Tensors) -> bool:
    return all(bool(np.isfinite(value.astype(np.float64)).all()) for value in answers.values())


def _compare(name: str, old: Tensors | None, new: Tensors, wanted: NDArray[np.generic]) -> OutputProof:
    reference = wanted.astype(np.float64)
    return OutputProof(
        output=name,
        shape=wanted.shape,
        before=math.nan if old is None else cosine(old[name].astype(np.float64), reference),
        after=cosine(new[name].astype(np.float64), reference),
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
            cure="quantise the float model again, for this target; "
            f"or accept it with --allow-loss {math.ceil(lost * 1000) / 1000}",
        )


def _find_loss(row: OutputProof) -> float:
    """A graph that gives no numbers has nothing to be compared with: then the new one must give some."""
    return (row.before if math.isfinite(row.before) else 0.0) - row.after
