"""Words for the masks of a text.

In: logits of one text and where its masks are. Out: the likeliest tokens of each. Must not import: torch, tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.serving.softmax import softmax

# As many as transformers' fill-mask pipeline shows.
_SHOWN = 5


def fill_masks(
    rows: NDArray[np.float64], places: Sequence[int], name_token: Callable[[int], str]
) -> list[list[dict[str, Any]]]:
    """Return for each mask the tokens it may stand for with their probabilities, the likeliest first."""
    return [_name_best(softmax(rows[place]), name_token) for place in places]


def _name_best(shares: NDArray[np.float64], name_token: Callable[[int], str]) -> list[dict[str, Any]]:
    best = np.argsort(-shares, kind="stable")[:_SHOWN]
    return [{"token": name_token(int(at)), "id": int(at), "probability": float(shares[at])} for at in best]
