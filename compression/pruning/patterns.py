"""Which weights leave together, and which of them go first: single weights, blocks, or the rest of every N of M.

In: scores of one or more weights [outputs, inputs], the share to prune. Out: where a weight is kept. Imports torch.

Blocks are (outputs, inputs) in this order, as the sparse kernels store them. Ranks decide and not thresholds: equal
scores would make the count depend on the ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Rectangles of ``high`` outputs by ``wide`` inputs, kept or pruned whole; one at an edge may be smaller."""

    high: int
    wide: int

    @property
    def most_pruned(self) -> float:
        """The largest share that can be pruned."""
        return 1.0

    @property
    def step(self) -> int:
        """How many neighbouring inputs must be decided together."""
        return self.wide

    def check_shape(self, shape: torch.Size) -> str | None:
        """Say why a weight of ``shape`` cannot be pruned so; None where it can, as any can."""
        del shape
        return None

    def rank(self, scores: Tensor) -> Tensor:
        """Return the mean score of every block, [block rows * block columns]."""
        outputs, inputs = scores.shape
        sums = self._cut(scores).sum(dim=(1, 3))
        if outputs % self.high or inputs % self.wide:
            return (sums / self._cut(torch.ones_like(scores)).sum(dim=(1, 3))).flatten()
        return sums.flatten() / (self.high * self.wide)

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """Give every weight of ``shape`` what was decided for its block."""
        blocks = kept.view(-1, math.ceil(shape[1] / self.wide))
        whole = blocks.repeat_interleave(self.high, dim=0).repeat_interleave(self.wide, dim=1)
        return whole[: shape[0], : shape[1]].contiguous()

    def _cut(self, values: Tensor) -> Tensor:
        outputs, inputs = values.shape
        whole = functional.pad(values, (0, -inputs % self.wide, 0, -outputs % self.high))
        return whole.view(whole.shape[0] // self.high, self.high, whole.shape[1] // self.wide, self.wide)


@dataclass(frozen=True, slots=True, kw_only=True)
class NOfM:
    """At most ``kept`` of every ``of`` neighbouring inputs of an output stay."""

    kept: int
    of: int

    @property
    def most_pruned(self) -> float:
        """The share that is pruned where the pattern is complete."""
        return 1.0 - self.kept / self.of

    @property
    def step(self) -> int:
        """How many neighbouring inputs must be decided together."""
        return self.of

    def check_shape(self, shape: torch.Size) -> str | None:
        """Say why a weight of ``shape`` cannot be pruned so; None where it can."""
        return f"its {shape[1]} inputs are no multiple of {self.of}" if shape[1] % self.of else None

    def rank(self, scores: Tensor) -> Tensor:
        """Return the score of every weight that may go; the best of each group never goes, its rank is infinite."""
        groups = scores.reshape(-1, self.of)
        return groups.scatter(1, groups.topk(self.kept, dim=1).indices, math.inf).flatten()

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """Give back the decision for every weight of ``shape``."""
        return kept.view(shape)


Pattern = Blocks | NOfM

PATTERNS: Final[Mapping[str, Pattern]] = {
    "1x1": Blocks(high=1, wide=1),
    "2:4": NOfM(kept=2, of=4),
    "4:8": NOfM(kept=4, of=8),
    "16x1": Blocks(high=16, wide=1),
    "8x1": Blocks(high=8, wide=1),
    "4x1": Blocks(high=4, wide=1),
    "1x4": Blocks(high=1, wide=4),
    "4x4": Blocks(high=4, wide=4),
    "16x4": Blocks(high=16, wide=4),
}


def choose_kept(scores: Tensor, share: float, pattern: Pattern) -> Tensor:
    """Keep the best: prune exactly ``round(share * units)`` units of a weight, those of the least score.

    Args:
        scores: [outputs, inputs], the higher the more a weight is worth.
        share: In [0, 1]; the units are weights or blocks.
        pattern: What a unit is, and what may go.

    Returns:
        bool [outputs, inputs], True where a weight stays.

    Raises:
        ValueError: the share is not in [0, 1], more than the pattern allows, or the shape does not fit the pattern.
    """
    return choose_kept_together({"": scores}, share, pattern)[""]


def choose_kept_together(scores: Mapping[str, Tensor], share: float, pattern: Pattern) -> dict[str, Tensor]:
    """As :func:`choose_kept` over several weights whose units are ranked in one list.

    A weight whose scores are all low may lose everything.
    """
    if not 0 <= share <= pattern.most_pruned:
        raise ValueError(f"a share of {share} is not in [0, {pattern.most_pruned}]")
    for name, values in scores.items():
        problem = pattern.check_shape(values.shape)
        if problem is not None:
            raise ValueError(f"'{name}': {problem}")
    ranked = {name: pattern.rank(values) for name, values in scores.items()}
    units = torch.cat(list(ranked.values()))
    kept = ~find_lowest(units, round(share * units.numel()))
    parts = kept.split([rank.numel() for rank in ranked.values()])
    return {name: pattern.spread(part, scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def find_lowest(values: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` of the least values of a vector; of equal ones those that come first."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    # A selection in linear time: sorting the ten million weights of a small encoder takes a second.
    threshold = values.kthvalue(count).values
    lowest = values < threshold
    ties = (values == threshold).nonzero().squeeze(1)
    lowest[ties[: count - int(lowest.sum())]] = True
    return lowest
