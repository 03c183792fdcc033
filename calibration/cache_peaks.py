"""How large the keys and values of a decoder's cache get, for each head and channel, over calibration data.

In: a float ONNX file and feeds. Out: the largest magnitudes, by input of the cache. Must not import torch.

Rotary positions turn keys, slow channels by a quarter only after thousands of tokens: in short texts at the start, half
of a slow pair looks smaller than it is further on (of SmolLM2's channels one in a hundred by 3 times, one by 23). So
each text is run once more somewhere along the context. Where positions turn keys, the answers there are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import MASK, POSITIONS, find_cache
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.protocol import Tensors

#: float32 [kv_heads, head_dim] by the name of the cache's input.
Peaks = Mapping[str, NDArray[np.float32]]

# Multiples of it leave no gap in the unit interval, however many there are.
_GOLDEN = (5**0.5 - 1) / 2


def measure_peaks(
    model: Path, feeds: Iterable[Tensors], *, longest: int | None = None, threads: int | None = None
) -> Peaks:
    """Run the model over prompts; what is padded does not count.

    Args:
        model: A decoder.
        feeds: Prompts behind an empty cache.
        longest: The most tokens that it takes, along which each prompt is placed once more; None leaves it out.
        threads: Of ONNX Runtime.

    Raises:
        DataError: there are no feeds, or they do not fit the model.
        UnsupportedModel: the model has no cache, or what it keeps is NaN or infinite (named).
    """
    artifact = describe_onnx(model)
    cache = find_cache(artifact.inputs)
    if cache is None:
        raise UnsupportedModel("there is no cache", where=str(model), cure="give a decoder that was exported with one")
    peaks: dict[str, NDArray[np.float32]] = {}
    with closing(OnnxRuntime(OrtOptions(threads=threads)).open(artifact)) as session:
        for batch in feeds if longest is None else _spread_positions(feeds, longest):
            outputs = session.run(batch)
            kept = np.asarray(batch[MASK])[:, None, :, None] != 0
            for past, present in cache.names():
                found = np.where(kept, np.abs(outputs[present]), 0).max(axis=(0, 2)).astype(np.float32)
                if not np.isfinite(found).all():
                    cure = "look for NaN or Inf in the weights before this layer's attention"
                    raise UnsupportedModel("NaN or Inf in the cache", where=present, cure=cure)
                peaks[past] = np.maximum(found, peaks.get(past, np.zeros_like(found)))
    if not peaks:
        raise DataError("there is nothing to run the model on", cure="give calibration data")
    return peaks


def _spread_positions(feeds: Iterable[Tensors], longest: int) -> Iterator[Tensors]:
    """Yield feeds as they are, and once more with each row somewhere else among ``longest`` positions."""
    count = 0
    for batch in feeds:
        yield batch
        positions = np.asarray(batch[POSITIONS])
        rows, length = positions.shape
        numbers = np.arange(count, count + rows)
        shifts = (numbers * _GOLDEN % 1 * (longest - length)).astype(positions.dtype)
        yield {**batch, POSITIONS: positions + shifts[:, None]}
        count += rows
