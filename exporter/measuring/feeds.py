"""Inputs that several subjects can be measured with: what any of them takes, at each shape.

In: the inputs of each subject, shapes, where tokenizers lie. Out: an ``.npz`` file for each shape.
Must not import: torch, a runtime.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.judging.held_out import USUAL_VOCABULARY, count_tokens
from exporter.options import DEFAULT_SHAPES
from exporter.probe_feeds import make_feeds, usable_shapes
from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UsageError

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedsPlan:
    """What to make.

    Attributes:
        shapes: (batch, sequence) pairs; empty takes the usual ones that the subjects can tell apart.
        directories: Where the tokenizers of the subjects may lie: token ids are below the smallest vocabulary.
        seed: Of the random values.
    """

    shapes: tuple[Shape, ...] = ()
    directories: tuple[Path, ...] = ()
    seed: int = 0


def write_feeds(inputs: Sequence[Sequence[TensorSpec]], plan: FeedsPlan, folder: Path) -> dict[str, Path]:
    """Write one file for each shape into ``folder``; return them by shape, ``8x128``.

    Raises:
        UsageError: two subjects want different things under one name, or a shape does not fit a fixed axis.
    """
    merged = merge_inputs(inputs)
    vocabulary = count_vocabulary(plan.directories)
    written = {}
    for shape in plan.shapes or usable_shapes(merged, DEFAULT_SHAPES):
        feeds = make_feeds(merged, shape, vocabulary=vocabulary, seed=plan.seed)
        path = folder / f"{shape[0]}x{shape[1]}.npz"
        # Any: numpy's own stub takes the name of an array for its option `allow_pickle`.
        arrays: dict[str, Any] = dict(feeds)
        np.savez(path, **arrays)
        written[path.stem] = path
    return written


def merge_inputs(inputs: Iterable[Sequence[TensorSpec]]) -> tuple[TensorSpec, ...]:
    """Return every input that any subject takes, once; an axis that one of them fixes is fixed.

    Raises:
        UsageError: two subjects take an input of one name with another type, rank or fixed axis.
    """
    merged: dict[str, TensorSpec] = {}
    for specs in inputs:
        for spec in _name_batch(specs):
            merged[spec.name] = _merge(merged[spec.name], spec) if spec.name in merged else spec
    return tuple(merged.values())


def count_vocabulary(directories: Iterable[Path]) -> int:
    """Return a number that token ids must stay below for all; two, which every table has rows for, where none tells."""
    counts = [count for directory in directories if (count := _read_vocabulary(directory)) is not None]
    return min(counts, default=2)


def _read_vocabulary(directory: Path) -> int | None:
    if (directory / "tokenizer.json").is_file():
        return count_tokens(directory / "tokenizer.json")
    if not (directory / "config.json").is_file():
        return None
    try:
        size = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    except (ValueError, RecursionError, AttributeError) as error:
        raise CorruptArtifact(
            "the configuration cannot be read", where=str(directory / "config.json"), cure="mend it, or fetch it again"
        ) from error
    return min(USUAL_VOCABULARY, size) if isinstance(size, int) and size > 0 else None


def _name_batch(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Call the first axis ``batch`` where no axis is: exporters have many names for it."""
    if any("batch" in spec.shape for spec in specs):
        return tuple(specs)
    return tuple(
        replace(spec, shape=("batch", *spec.shape[1:])) if spec.shape and isinstance(spec.shape[0], str) else spec
        for spec in specs
    )


def _merge(first: TensorSpec, second: TensorSpec) -> TensorSpec:
    fixed_apart = any(
        isinstance(ours, int) and isinstance(theirs, int) and ours != theirs
        for ours, theirs in zip(first.shape, second.shape, strict=False)
    )
    if first.dtype != second.dtype or len(first.shape) != len(second.shape) or fixed_apart:
        raise UsageError(
            f"one subject takes {first.dtype} {list(first.shape)}, another {second.dtype} {list(second.shape)}",
            where=first.name,
            cure="measure models with the same inputs, or each by itself",
        )
    axes = zip(first.shape, second.shape, strict=True)
    return replace(first, shape=tuple(theirs if isinstance(theirs, int) else ours for ours, theirs in axes))
