"""What tokens cost: the negative log-likelihood of each under its row of logits. Must not import a runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of logits in float64 at a time, 16 MiB: a vocabulary is large, and three arrays of its width are needed.
_VALUES_AT_A_TIME = 1 << 21


def cost_tokens(logits: NDArray[np.generic], wanted: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the cross-entropy of each token, float64 [rows], in natural units.

    Args:
        logits: [rows, vocabulary], of any float type; there may be no rows.
        wanted: The token of each row, below the vocabulary, [rows].
    """
    step = max(1, _VALUES_AT_A_TIME // logits.shape[1])
    costs = np.empty(len(wanted))
    for start in range(0, len(wanted), step):
        costs[start : start + step] = _cost_piece(logits[start : start + step], wanted[start : start + step])
    return costs


def _cost_piece(logits: NDArray[np.generic], wanted: NDArray[np.generic]) -> NDArray[np.float64]:
    rows = logits.astype(np.float64)
    highest = rows.max(axis=1)
    norms = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=1))
    costs: NDArray[np.float64] = norms - rows[np.arange(len(wanted)), wanted]
    return costs
