"""How many pieces of a vocabulary could leave, by what some data uses.

In: a subject. Out: a number, and a sentence where it stays. Must not import torch at module level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.planning.subject import PlanSubject
from runtimes.errors import UnsupportedModel

# It is made smaller where so many rows go, and so much of other text is still told by the same pieces.
_WORTH_ROWS, _TOLD_SHARE = 0.1, 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinkage:
    """``rows_gone`` pieces leave, 0 where it stays; ``finding`` says why, if there is a reason to say."""

    rows_gone: int = 0
    finding: str | None = None


def shrink_vocabulary(subject: PlanSubject) -> Shrinkage:
    """Return what ``prune-vocabulary`` would take away by the whole data.

    Half of the data tells whether the other half is enough to choose pieces by.
    """
    if subject.tokenizer is None:
        return Shrinkage()
    from compression.words.embedding_rows import list_special_ids
    from compression.words.tokenizer_files import read_tokenizer
    from compression.words.vocabulary import choose_pieces, read_vocabulary

    try:
        also = {*subject.tokens.every, subject.tokens.padding} | list_special_ids(subject.model)
        vocabulary = read_vocabulary(read_tokenizer(subject.tokenizer), also=also)
    except UnsupportedModel as error:
        return Shrinkage(finding=f"The vocabulary stays: {error.what}.")
    size = len(vocabulary.pieces)
    rows = [np.asarray(row["input_ids"], np.int64) for row in subject.everything.rows]
    first, second = _count(rows[::2], size), _count(rows[1::2], size)
    kept = choose_pieces(vocabulary, (first + second).tolist(), min_count=1, size=None, whole_alphabet=True)
    if size - len(kept) < _WORTH_ROWS * size:
        return Shrinkage()
    told = float(second[first > 0].sum() / max(second.sum(), 1))
    if told < _TOLD_SHARE:
        return Shrinkage(
            finding=f"The vocabulary stays: half of the data has only {told:.1%} of the tokens of the other half;"
            " with more --data it could shrink."
        )
    return Shrinkage(rows_gone=size - len(kept))


def _count(rows: list[NDArray[np.int64]], size: int) -> NDArray[np.int64]:
    return np.bincount(np.concatenate(rows), minlength=size)[:size]
