"""The likeliest tokens behind prompts, from a decoder's graph alone: behind a cache, or from whole sequences.

In: a session of a graph with a cache, rows of tokens. Out: tokens. No library's loop: what loops say is held against
this. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtimes.generation.cache_spec import LOGITS, CacheSpec
from runtimes.generation.feeds import carry_cache, make_step
from runtimes.protocol import Session

Rows = Sequence[Sequence[int]]


def continue_rows(session: Session, cache: CacheSpec, rows: Rows, count: int) -> list[list[int]]:
    """Return ``count`` tokens behind each row, one after the other behind the cache; no token ends a row."""
    ids, mask = pad_left(rows)
    past = cache.empty(len(rows))
    said = []
    for _ in range(count):
        outputs = session.run(make_step(ids, mask, past))
        tokens = np.asarray(outputs[LOGITS])[:, -1].argmax(-1).astype(np.int64)
        said.append(tokens)
        past = carry_cache(cache, outputs)
        ids, mask = tokens[:, None], np.hstack([mask, np.ones((len(rows), 1), np.int64)])
    told: list[list[int]] = np.stack(said, axis=1).tolist()
    return told


def predict_rows(session: Session, cache: CacheSpec, rows: Rows, answers: Rows) -> list[list[int]]:
    """Return the likeliest token behind each row and each beginning of its answer, from one run without a cache.

    As long as this agrees with the answer, it is what generating without a cache says: each token is the likeliest
    behind all that was said before. ``answers`` are of one length.
    """
    count = len(answers[0])
    ids, mask = pad_left([[*row, *answer[:-1]] for row, answer in zip(rows, answers, strict=True)])
    logits = np.asarray(session.run(make_step(ids, mask, cache.empty(len(rows))))[LOGITS])
    told: list[list[int]] = logits[:, -count:].argmax(-1).tolist()
    return told


def pad_left(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows as one array with token 0 before the shorter ones, and the mask of what counts."""
    longest = max(map(len, rows))
    ids, mask = (np.zeros((len(rows), longest), np.int64) for _ in range(2))
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :], mask[place, longest - len(row) :] = row, 1
    return ids, mask
