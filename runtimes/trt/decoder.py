"""A decoder's plan on the GPU: its cache stays there, where what one step leaves is what the next one reads.

In: an open session over a plan, tokens. Out: logits. Must not import onnx or torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import LOGITS, find_cache
from runtimes.generation.feeds import make_step
from runtimes.trt.session import TrtSession


class TrtDecoder:
    """Answers a batch of texts step by step: a prompt, then a token at a time. One batch at once, not thread-safe.

    Raises:
        UnsupportedModel: the plan keeps no cache.
    """

    def __init__(self, session: TrtSession) -> None:
        cache = find_cache(session.inputs)
        if cache is None:
            raise UnsupportedModel("the plan keeps no cache", where="plan", cure="export a causal language model")
        self._session, self._cache = session, cache
        self._mask: NDArray[np.int64] | None = None

    def start(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.generic]:
        """Forget what was before, and answer prompts.

        Args:
            ids: int64 [batch, sequence], padded before the first token.
            mask: 1 for every token that counts and 0 for padding, int64 [batch, sequence].

        Returns:
            Logits [batch, sequence, vocabulary].

        Raises:
            DataError: no profile of the plan holds so many.
        """
        feeds = make_step(ids, mask, self._cache.empty(len(ids)))
        self._mask = None
        logits = self._session.run_kept(feeds, dict(self._cache.names()))[LOGITS]
        self._mask = mask
        return logits

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.generic]:
        """Answer one more token of every text, int64 [batch, 1]: logits [batch, 1, vocabulary].

        Raises:
            DataError: nothing was started, or no profile of the plan holds so many.
        """
        if self._mask is None:
            raise DataError("no text was started", where="step", cure="start with a prompt")
        mask, self._mask = np.concatenate([self._mask, np.ones_like(ids)], axis=1), None
        logits = self._session.run_kept(make_step(ids, mask, {}), dict(self._cache.names()))[LOGITS]
        self._mask = mask
        return logits
