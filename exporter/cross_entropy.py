"""What tokens cost: the negative log-likelihood of each under its row of logits. Must not import a runtime."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def cost_tokens(logits: NDArray[np.generic], wanted: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the cross-entropy of each token, float64 [rows], in natural units.

    Args:
        logits: [rows, vocabulary], of any float type; there may be no rows.
        wanted: The token of each row, below the vocabulary, [rows].
    """
    rows = logits.astype(np.float64)
    highest = rows.max(axis=1, initial=-math.inf) if len(wanted) else np.zeros(0)
    norms = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=1))
    costs: NDArray[np.float64] = norms - rows[np.arange(len(wanted)), wanted]
    return costs
