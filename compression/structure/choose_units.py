"""Which units stay, from their scores: the same share of every layer, or the best of the whole model.

In: scores and a share. Out: places to keep. Pure; imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from runtimes.errors import UsageError

Scope = Literal["layer", "global"]


def choose_units(
    scores: Mapping[str, torch.Tensor], sparsity: float, *, scope: Scope, multiple_of: int = 1
) -> dict[str, list[int]]:
    """Return by name the places of the units to keep, in order.

    Args:
        scores: A score for each unit, [units]; larger is kept. Equal scores: the earlier unit is kept.
        sparsity: The share of units that leaves, in [0, 1).
        scope: ``layer`` takes the share from every layer; ``global`` takes the lowest of all, so that widths differ.
        multiple_of: The units left in a layer are a multiple of this, and at least as many.

    Raises:
        UsageError: a layer's units are not divisible by ``multiple_of``.
    """
    for name, values in scores.items():
        if len(values) % multiple_of:
            raise UsageError(
                f"{len(values)} units are not divisible by multiple_of = {multiple_of}",
                where=name,
                cure="choose a multiple_of that divides the units of every layer",
            )
    counts = _count_by_layer(scores, sparsity) if scope == "layer" else _count_globally(scores, sparsity)
    return {name: _take_best(values, _round(counts[name], multiple_of, len(values))) for name, values in scores.items()}


def _count_by_layer(scores: Mapping[str, torch.Tensor], sparsity: float) -> dict[str, int]:
    return {name: len(values) - round(sparsity * len(values)) for name, values in scores.items()}


def _count_globally(scores: Mapping[str, torch.Tensor], sparsity: float) -> dict[str, int]:
    everything = torch.cat(list(scores.values()))
    kept = torch.zeros(len(everything), dtype=torch.long)
    kept[_rank(everything)[: len(everything) - round(sparsity * len(everything))]] = 1
    pieces = kept.split([len(values) for values in scores.values()])
    return {name: int(piece.sum()) for name, piece in zip(scores, pieces, strict=True)}


def _round(count: int, multiple_of: int, most: int) -> int:
    return min(most, max(multiple_of, round(count / multiple_of) * multiple_of))


def _take_best(values: torch.Tensor, count: int) -> list[int]:
    return sorted(_rank(values)[:count].tolist())


def _rank(values: torch.Tensor) -> torch.Tensor:
    return values.argsort(descending=True, stable=True)
