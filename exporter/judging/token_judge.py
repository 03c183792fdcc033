"""How much a decoder loses against float: the perplexity of held-out text, and whether its cache changes its answers.

In: sessions and held-out batches. Out: a Judgement. Must not import torch.

The float model is open only while its answers are looked at: beside each candidate it would double what is in memory.

The drop is the relative increase of perplexity: 0.01 is one percent. A whole row of logits is as wide as the
vocabulary, so of the float model only what is compared is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.judging.cross_entropy import cost_tokens
from exporter.judging.judge import Judgement
from exporter.judging.perplexity import PERPLEXITY
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import IDS, LOGITS, MASK, CacheSpec
from runtimes.generation.feeds import carry_cache, make_step
from runtimes.protocol import Session, Tensors

TOP, CACHED = "top-1 agreement", "same with a cache"
# Sums taken in another order land some activations on the next level, and with a cache the rounding of a token is
# another one of the same size: it decides anew between tokens that are all but equal. Of 768 tokens of SmolLM2-135M
# behind a cache float changes none, int8 with a scale a token 4.2 %, blocks of 8 and 4 bits, whose kernels round
# activations too, 4.6 and 4.8 %. Scales that depend on how many tokens come at once change 47 %
# (microsoft/onnxruntime#10322).
NEAR_TIES = 0.1
# So many texts where the first looks worse: half a text is some 64 tokens, of which 5 % come out as 12 now and then.
_CLOSER_TEXTS = 4
# A perplexity of e to this is written down; of e to 710 it is no float.
_MOST = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Of every token that has one before it: what it cost (natural logarithm), and what was most likely instead.

    ``same`` is the share of the next tokens of the longest text that are the same with a cache, of those behind one;
    of the longest four where that text alone would rule the model out.
    """

    losses: NDArray[np.float64]
    likeliest: NDArray[np.int64]
    same: float


class TokenJudge:
    """Compares how candidates tell the tokens of held-out batches with how the float model does."""

    def __init__(self, open_reference: Callable[[], Session], batches: Sequence[Tensors], cache: CacheSpec) -> None:
        """Keep how to open the float model, which is closed again once it has answered ``batches``."""
        self._open_reference, self._batches, self._cache = open_reference, batches, cache
        self._reference: Told | None = None

    def look_at_reference(self) -> Told:
        """Return what the float model tells. It is opened the first time: best before a candidate is.

        Raises:
            DataError: no text has a token behind its first.
        """
        if self._reference is None:
            with closing(self._open_reference()) as session:
                self._reference = self._tell(session)
        if not len(self._reference.losses):
            raise DataError("no held-out text has a second token to be told", cure="give longer texts")
        return self._reference

    def judge(self, session: Session) -> Judgement:
        """Return perplexity, top-1 agreement with float, and how often the next token is the same with a cache.

        Raises:
            DataError: no text has a token behind its first.
            UnsupportedModel: the candidate answers NaN or infinity.
        """
        return _compare(self.look_at_reference(), self._tell(session))

    def judge_reference(self) -> Judgement:
        """Return the same of the float model; what it raises too."""
        reference = self.look_at_reference()
        return _compare(reference, reference)

    def _tell(self, session: Session) -> Told:
        parts = [tell_tokens(session.run(feeds)[LOGITS], feeds) for feeds in self._batches]
        return Told(
            losses=np.concatenate([losses for losses, _ in parts]),
            likeliest=np.concatenate([best for _, best in parts]),
            same=self._compare_cached(session),
        )

    def _compare_cached(self, session: Session) -> float:
        first, *others = self._longest_rows(_CLOSER_TEXTS)
        same = self._find_same(session, first)
        if len(same) and same.mean() < 1 - NEAR_TIES:
            same = np.concatenate([same, *(self._find_same(session, row) for row in others)])
        return float(same.mean()) if len(same) else 1.0

    def _find_same(self, session: Session, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Answer a row whole, and once more in a prompt and one token at a time; return where both agree."""
        count, start = ids.shape[1], max(1, ids.shape[1] // 2)
        ones = np.ones((1, count), np.int64)
        whole = session.run(make_step(ids, ones, self._cache.empty(1)))[LOGITS][0].argmax(axis=-1)
        outputs = session.run(make_step(ids[:, :start], ones[:, :start], self._cache.empty(1)))
        parts = []
        for place in range(start, count):
            past = carry_cache(self._cache, outputs)
            outputs = session.run(make_step(ids[:, place : place + 1], ones[:, : place + 1], past))
            parts.append(outputs[LOGITS][0].argmax(axis=-1))
        return np.concatenate([np.empty(0, np.int64), *parts]) == whole[start:]

    def _longest_rows(self, count: int) -> list[NDArray[np.int64]]:
        rows = [
            np.asarray(ids)[np.asarray(mask) != 0][None]
            for feeds in self._batches
            for ids, mask in zip(feeds[IDS], feeds[MASK], strict=True)
        ]
        return [row.astype(np.int64) for row in sorted(rows, key=lambda row: -row.shape[1])[:count]]


def _compare(reference: Told, told: Told) -> Judgement:
    wanted, got = (float(one.losses.mean()) for one in (reference, told))
    same, top = told.same, float((told.likeliest == reference.likeliest).mean())
    return Judgement(
        metrics={PERPLEXITY: math.exp(min(got, _MOST)), TOP: top, CACHED: same},
        drop=max(0.0, math.expm1(min(got - wanted, _MOST))),
        fault=_object_to_cache(same, reference.same),
    )


def _object_to_cache(same: float, wanted: float) -> str:
    """Return why answers that change with a cache rule a candidate out, or nothing."""
    return f"{1 - same:.1%} of its next tokens change with a cache" if same < wanted - NEAR_TIES else ""


def tell_tokens(logits: NDArray[np.generic], feeds: Tensors) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (negative log-likelihood, likeliest token) at every position whose next token is given.

    Args:
        logits: [batch, sequence, vocabulary], behind an empty cache.
        feeds: What the model was fed; padding before a row counts for nothing.

    Raises:
        UnsupportedModel: a logit is NaN or infinite.
    """
    ids, mask = np.asarray(feeds[IDS]), np.asarray(feeds[MASK]) != 0
    kept = mask[:, :-1] & mask[:, 1:]
    # Text by text: what counts of a batch is a copy nearly as large as its logits.
    told = [
        _tell_row(answers[counts], tokens[counts])
        for answers, tokens, counts in zip(logits[:, :-1], ids[:, 1:], kept, strict=True)
    ]
    return np.concatenate([losses for losses, _ in told]), np.concatenate([best for _, best in told])


def _tell_row(
    logits: NDArray[np.generic], wanted: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if not np.isfinite(logits).all():
        raise UnsupportedModel(
            "a candidate answers NaN or infinity on the held-out data", where=LOGITS, cure="check the float model"
        )
    return cost_tokens(logits, wanted), logits.argmax(axis=-1)
