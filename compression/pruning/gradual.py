"""Pruning while training: more zeros from update to update, where scores say.

In: linears, what is wanted, a schedule and how to score. Out: a hook of the training loop. Imports torch.

Schedule: Zhu and Gupta, "To prune, or not to prune", 2017 (arXiv:1710.01878).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.pruning.magnitude import Scope, apply_masks, choose_masks
from compression.pruning.masks import HeldZeros
from compression.pruning.patterns import Pattern

# Masks are chosen anew so many times between the first zeros and the last: each time takes about as long as an update.
_STAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is wanted in the end: which share of the units is zero, in which pattern, each weight or all together."""

    share: float
    pattern: Pattern
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class CubicSchedule:
    """From ``first`` to ``last`` (shares of zeros) between two points of a training, fast at first, then ever slower.

    Attributes:
        first: The share there is to begin with.
        last: The share in the end.
        begin: Where it starts to grow, in 0..1 of the training.
        end: Where it has grown; the rest of the training recovers.
    """

    first: float
    last: float
    begin: float
    end: float

    def share_at(self, progress: float) -> float:
        """Return the share of zeros at a point of the training; it grows in steps (Zhu and Gupta 2017, eq. 1)."""
        gone = min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        staged = math.floor(gone * _STAGES) / _STAGES
        return self.first + (self.last - self.first) * (1.0 - (1.0 - staged) ** 3)


class PruneGradually:
    """Zeros grow by a schedule, the lowest scores first, and stay; a hook of the training loop.

    ``score`` is asked anew at each stage, and must give zeros the lowest scores for them to stay.
    """

    def __init__(
        self,
        linears: Mapping[str, nn.Linear],
        goal: Goal,
        schedule: CubicSchedule,
        score: Callable[[Mapping[str, nn.Linear]], dict[str, Tensor]],
    ) -> None:
        self._linears, self._goal, self._schedule, self._score = linears, goal, schedule, score
        self._held = HeldZeros({name: linear.weight for name, linear in linears.items()})
        self._share = torch.tensor(schedule.first, dtype=torch.float64)

    def before_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Prune up to what the schedule says."""
        self._prune(self._schedule.share_at(progress))
        self._held.drop_gradients()

    def after_step(self, model: nn.Module, progress: float) -> None:  # noqa: ARG002 - the protocol of a hook
        """Put the zeros back."""
        self._held.restore()

    def finish(self) -> None:
        """Prune what is left to prune: a short training may end before the last stage."""
        self._prune(self._goal.share)

    def tensors(self) -> dict[str, Tensor]:
        """Return where the zeros are, and which share that is."""
        return {**self._held.tensors(), "share": self._share}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        self._held.load_tensors(tensors)
        self._share.copy_(tensors["share"])

    def measures(self) -> dict[str, float]:
        """Return the share of zeros."""
        return self._held.measures()

    def _prune(self, share: float) -> None:
        if share == float(self._share):
            return
        masks = choose_masks(self._score(self._linears), share, self._goal.pattern, self._goal.scope)
        apply_masks(self._linears, masks)
        for name, kept in masks.items():
            self._held.hold(name, kept)
        self._share.fill_(share)
