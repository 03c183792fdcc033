"""How good the vectors of a model are: against those of float, and against what people say.

In: a session that gives token vectors, a tokenizer, texts or scored pairs. Out: plain numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.subjects.texts import encode_texts, select_feeds
from runtimes.errors import BudgetMissed, DataError, UnsupportedModel
from runtimes.protocol import Session

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float64]

# Dynamic quantisation takes its scales from the whole batch, so the batch is part of what is measured.
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Cosine of each vector (a text's, or a token's) with its reference: the mean and the worst."""

    mean: float
    minimum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two texts and how alike people find them."""

    text_a: str
    text_b: str
    score: float


def embed_texts(session: Session, tokenizer: Tokenizer, texts: Sequence[str]) -> Vectors:
    """Return unit sentence embeddings [texts, width]: token vectors averaged over what is not padding.

    Texts go in batches of eight, in the order given.

    Raises:
        UnsupportedModel: the model gives no ``last_hidden_state``, nor a single output of three axes.
        BudgetMissed: it answers NaN or infinity.
    """
    parts = []
    for tokens, mask in _run_batches(session, tokenizer, texts):
        mean = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        parts.append(_normalise(mean))
    return np.concatenate(parts)


def embed_tokens(session: Session, tokenizer: Tokenizer, texts: Sequence[str]) -> Vectors:
    """Return a unit vector of every token that is not padding [tokens, width], in the order of the texts.

    Raises as :func:`embed_texts`.
    """
    return np.concatenate([_normalise(tokens[mask > 0]) for tokens, mask in _run_batches(session, tokenizer, texts)])


def compare_embeddings(reference: Vectors, vectors: Vectors) -> Agreement:
    """Compare unit vectors row by row."""
    cosines = (reference * vectors).sum(axis=1)
    return Agreement(mean=float(cosines.mean()), minimum=float(cosines.min()))


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read scored pairs: JSON lines with ``text_a``, ``text_b`` and ``score``."""
    return tuple(Pair(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line)


def score_pairs(session: Session, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> float:
    """Return the Spearman correlation of embedding cosine with human similarity over all pairs."""
    texts = sorted({text for pair in pairs for text in (pair.text_a, pair.text_b)})
    place = {text: number for number, text in enumerate(texts)}
    vectors = embed_texts(session, tokenizer, texts)
    left = vectors[[place[pair.text_a] for pair in pairs]]
    right = vectors[[place[pair.text_b] for pair in pairs]]
    return correlate_ranks((left * right).sum(axis=1), np.array([pair.score for pair in pairs]))


def correlate_ranks(left: Vectors, right: Vectors) -> float:
    """Return Spearman's rank correlation, ties at their mean rank.

    Raises:
        DataError: fewer than two values, another length, or all values of a side alike.
    """
    if len(left) != len(right) or len(left) < 2:
        raise DataError(f"cannot correlate {len(left)} with {len(right)} values", cure="give at least two pairs")
    a, b = _rank(left), _rank(right)
    a, b = a - a.mean(), b - b.mean()
    if not a.any() or not b.any():
        raise DataError("cannot correlate values that are all alike", cure="give data that differs")
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _run_batches(
    session: Session, tokenizer: Tokenizer, texts: Sequence[str]
) -> Iterator[tuple[Vectors, NDArray[np.int64]]]:
    """Yield token vectors [batch, sequence, width] and the mask [batch, sequence] of each batch of texts."""
    output = _find_token_output(session)
    for start in range(0, len(texts), _BATCH):
        feeds = encode_texts(tokenizer, texts[start : start + _BATCH])
        tokens = session.run(select_feeds(session.inputs, feeds))[output].astype(np.float64)
        if not np.isfinite(tokens).all():
            raise BudgetMissed(
                "the model answers NaN or infinity", where=output, cure="look for overflow, and for masks in int8"
            )
        yield tokens, feeds["attention_mask"]


def _normalise(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _rank(values: Vectors) -> Vectors:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The mean rank of a group of ties is the rank of its last member less half of the others.
    mean_ranks: Vectors = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[place]


def _find_token_output(session: Session) -> str:
    names = [spec.name for spec in session.outputs]
    if "last_hidden_state" in names:
        return "last_hidden_state"
    if len(names) == 1 and len(session.outputs[0].shape) == 3:
        return names[0]
    raise UnsupportedModel(f"no token vectors among its outputs: {', '.join(names)}", cure="use a feature extractor")
