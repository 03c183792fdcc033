"""What one step of a decoder is fed: tokens, which of them count, where they stand, and the cache before them.

In: arrays. Out: feeds by input name. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from runtimes.generation.cache_spec import IDS, MASK, POSITIONS, CacheSpec
from runtimes.protocol import Tensors


def make_step(
    ids: NDArray[np.int64], mask: NDArray[np.int64], past: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Return the feeds of one step.

    Args:
        ids: The tokens that are new, int64 [batch, sequence].
        mask: 1 for every token that counts and 0 for padding, those in the cache included, int64 [batch, total].
        past: The cache, by input name; :meth:`CacheSpec.empty` before the first token.
    """
    return {IDS: ids, MASK: mask, POSITIONS: place_tokens(mask)[:, mask.shape[1] - ids.shape[1] :], **past}


def place_tokens(mask: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the position of every token [batch, total]: counted from the first that is no padding, which is 0."""
    counted: NDArray[np.int64] = np.cumsum(mask, axis=1, dtype=np.int64)
    return np.maximum(counted - 1, 0)


def blank_padding(cache: CacheSpec, feeds: Tensors, outputs: Tensors) -> dict[str, NDArray[np.generic]]:
    """Return the outputs of a step with zeros where there was padding, of which nobody promises anything."""
    mask = np.asarray(feeds[MASK]) != 0
    new = mask[:, mask.shape[1] - np.asarray(feeds[IDS]).shape[1] :, None]
    present = {name for _, name in cache.names()}
    return {
        name: np.where(mask[:, None, :, None] if name in present else new, array, 0) for name, array in outputs.items()
    }


def carry_cache(cache: CacheSpec, outputs: Tensors) -> dict[str, NDArray[np.generic]]:
    """Return the cache behind a step, under the names of the next step's inputs."""
    return {past: outputs[present] for past, present in cache.names()}
