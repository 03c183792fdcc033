"""Logits to probabilities, and to the class that a person can read. Must not import anything but numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax of a vector; -inf gives 0."""
    # Shifted by the largest, so that no exponential overflows.
    powers = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def name_class(logits: NDArray[np.float64], labels: Sequence[str]) -> dict[str, Any]:
    """Return the class of the largest logit and its softmax probability."""
    best = int(logits.argmax())
    return {
        "label": labels[best] if best < len(labels) else str(best),
        "probability": float(softmax(logits)[best]),
        "logits": logits.tolist(),
    }
