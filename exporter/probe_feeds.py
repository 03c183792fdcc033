"""Inputs to time a model with: of a given shape, and of a kind the model meets in use.

In: input specs and a (batch, sequence) shape. Out: feeds. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.options import DEFAULT_SHAPES
from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError
from runtimes.generation.cache_spec import BATCH, MASK, PAST, POSITIONS, SEQUENCE, TOTAL, find_cache
from runtimes.generation.feeds import place_tokens

# How many tokens lie before the one that a decoder is timed on.
CONTEXTS = (128, 1024)
# Integer inputs that are not token ids.
_ONES = {"attention_mask"}
_ZEROS = {"token_type_ids", "position_ids", "bbox"}


def make_feeds(
    specs: Sequence[TensorSpec], shape: tuple[int, int], *, vocabulary: int, seed: int
) -> dict[str, NDArray[np.generic]]:
    """Return one batch of ``shape`` (batch, sequence): nothing padded, random token ids below ``vocabulary``.

    An axis called ``batch`` takes the batch, any other dynamic axis the sequence; fixed axes stay. The cache of a
    decoder is empty.

    Raises:
        UsageError: a fixed batch axis differs from the batch asked for.
    """
    generator = np.random.default_rng(seed)
    feeds = {spec.name: _fill(spec, _resolve(spec, shape), vocabulary, generator) for spec in specs}
    if find_cache(specs) is not None and MASK in feeds and POSITIONS in feeds:
        feeds[POSITIONS] = place_tokens(feeds[MASK])
    return feeds


def make_step_feeds(
    specs: Sequence[TensorSpec], past: int, *, vocabulary: int, seed: int
) -> dict[str, NDArray[np.generic]]:
    """Return what a decoder is fed for one token behind a cache of ``past`` tokens, which holds random numbers."""
    generator = np.random.default_rng(seed)
    sizes = {BATCH: 1, SEQUENCE: 1, PAST: past, TOTAL: past + 1}
    shapes = {spec.name: tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape) for spec in specs}
    feeds = {spec.name: _fill(spec, shapes[spec.name], vocabulary, generator) for spec in specs}
    return {**feeds, POSITIONS: np.full((1, 1), past, np.int64)}


def find_contexts(specs: Sequence[TensorSpec], longest: int | None) -> tuple[int, ...]:
    """Return how many tokens lie before those that a model is timed on one by one; none where it keeps no cache."""
    if find_cache(specs) is None:
        return ()
    return tuple(dict.fromkeys(min(context, (longest or context + 1) - 1) for context in CONTEXTS))


def usable_shapes(specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the shapes that differ for this model: an axis it has not, or has fixed, does not count."""
    dynamic = {axis for spec in specs for axis in spec.shape if isinstance(axis, str)}
    fixed = next((spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)), None)
    batches = [batch if fixed is None else int(fixed) for batch, _ in shapes]
    lengths = [length if dynamic - {"batch"} else 1 for _, length in shapes]
    return tuple(dict.fromkeys(zip(batches, lengths, strict=True)))


def fit_shapes(shapes: Sequence[tuple[int, int]], longest: int | None) -> tuple[tuple[int, int], ...]:
    """Return the shapes that a model takes of at most ``longest`` tokens: the usual ones are shortened to that.

    Raises:
        UsageError: a shape that was asked for is longer.
    """
    too_long = [shape for shape in shapes if longest is not None and shape[1] > longest]
    if longest is None or not too_long:
        return tuple(shapes)
    if tuple(shapes) != DEFAULT_SHAPES:
        batch, length = too_long[0]
        cure = f"give at most {batch}x{longest}"
        raise UsageError(f"the model takes at most {longest} tokens", where=f"--shape {batch}x{length}", cure=cure)
    return tuple(dict.fromkeys((batch, min(length, longest)) for batch, length in shapes))


def _resolve(spec: TensorSpec, shape: tuple[int, int]) -> tuple[int, ...]:
    batch, sequence = shape
    first = spec.shape[0] if spec.shape else None
    if isinstance(first, int) and first != batch:
        raise UsageError(f"the model's batch is fixed to {first}", where=f"--shape {batch}x{sequence}", cure="use it")
    sizes = {BATCH: batch, PAST: 0}
    return tuple(axis if isinstance(axis, int) else sizes.get(axis, sequence) for axis in spec.shape)


def _fill(
    spec: TensorSpec, shape: tuple[int, ...], vocabulary: int, generator: np.random.Generator
) -> NDArray[np.generic]:
    kind = np.dtype(spec.dtype)
    if spec.name in _ONES:
        return np.ones(shape, kind)
    if spec.name in _ZEROS:
        return np.zeros(shape, kind)
    if kind.kind in "iu":
        return generator.integers(0, vocabulary, shape).astype(kind)
    if kind.kind == "b":
        return np.ones(shape, kind)
    return generator.standard_normal(shape).astype(kind)
