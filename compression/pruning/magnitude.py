"""Pruning by the weights alone: the smallest, or, to have something to compare with, random ones, become exact zeros.

In: linears, a share, a pattern. Out: the same linears, edited. Imports torch.

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015 (arXiv:1506.02626).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from compression.pruning.patterns import Pattern, choose_kept, choose_kept_together

Scope = Literal["layer", "global"]


def score_magnitude(linears: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """Return the square of every weight, [outputs, inputs]: a block is then as large as its norm."""
    return {name: linear.weight.detach().square() for name, linear in linears.items()}


def draw_scores(linears: Mapping[str, nn.Linear], generator: torch.Generator) -> dict[str, Tensor]:
    """Return random scores, [outputs, inputs]; what is zero already scores zero."""
    return {
        name: torch.rand(linear.weight.shape, generator=generator) * (linear.weight.detach() != 0)
        for name, linear in linears.items()
    }


def choose_masks(scores: Mapping[str, Tensor], share: float, pattern: Pattern, scope: Scope) -> dict[str, Tensor]:
    """Return where each weight stays, bool [outputs, inputs].

    Args:
        scores: By name, the higher the better.
        share: To prune, of the units of each weight, or with scope ``global`` of all weights together.
        pattern: What leaves together.
        scope: Whether every weight loses the same share, or all are ranked in one list.

    Raises:
        ValueError: the share or a shape does not fit the pattern.
    """
    if scope == "global":
        return choose_kept_together(scores, share, pattern)
    return {name: choose_kept(values, share, pattern) for name, values in scores.items()}


def apply_masks(linears: Mapping[str, nn.Linear], masks: Mapping[str, Tensor]) -> None:
    """Set to zero what is not kept."""
    with torch.no_grad():
        for name, linear in linears.items():
            linear.weight.masked_fill_(~masks[name], 0.0)
