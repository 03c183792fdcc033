"""One vector a text out of what a model answers.

In: a model's outputs and what it was fed. Out: a (batch, width) matrix. Must not import a runtime.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UnsupportedModel
from runtimes.protocol import Tensors


def pool_outputs(outputs: Tensors, feeds: Tensors) -> NDArray[np.float64]:
    """Return one vector a sample, (batch, width) float64: the mean over unmasked tokens of the first output.

    An output that has one vector a sample is returned as it is; further axes are flattened.

    Raises:
        UnsupportedModel: the first output is not floating point or has no batch axis.
    """
    name, first = next(iter(outputs.items()))
    if first.dtype.kind != "f" or first.ndim < 2:
        raise UnsupportedModel(
            f"{name} is {first.dtype}{list(first.shape)}: no vector a sample", cure="export with another task"
        )
    values = first.astype(np.float64)
    mask = feeds.get("attention_mask")
    if values.ndim == 3 and mask is not None and mask.shape == values.shape[:2]:
        weights = mask.astype(np.float64)[..., None]
        pooled: NDArray[np.float64] = (values * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
        return pooled
    return values.mean(axis=1) if values.ndim == 3 else values.reshape(len(values), -1)
