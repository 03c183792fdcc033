"""Linears as two thin factors, by truncated singular value decomposition.

In: a model, the names of its linears, and a rank for each. Out: the model with those replaced. Imports torch.

Truncation of the SVD is the best approximation of a rank in the Frobenius norm (Eckart and Young, 1936).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class LowRankLinear(nn.Module):
    """``up(down(x))``: (inputs -> rank, no bias), then (rank -> outputs, with the bias)."""

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    @classmethod
    def from_linear(cls, linear: nn.Linear, rank: int) -> LowRankLinear:
        """Factorise a linear's weight (outputs, inputs); the singular values go half to each factor."""
        made = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None)
        left, values, right = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
        root = values[:rank].sqrt()
        with torch.no_grad():
            made.down.weight.copy_(root[:, None] * right[:rank])
            made.up.weight.copy_(left[:, :rank] * root)
            if linear.bias is not None:
                made.up.bias.copy_(linear.bias)
        return made

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        product: torch.Tensor = self.up(self.down(inputs))
        return product


def factorise(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Replace the linears named in ``ranks``.

    Raises:
        ValueError: a name is not a linear, or a rank is not between 1 and the smaller side of its weight.
    """
    for name, rank in ranks.items():
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"'{name}' is a {type(linear).__name__}, not a Linear")
        if not 1 <= rank <= min(linear.weight.shape):
            raise ValueError(f"rank {rank} of '{name}' is not between 1 and {min(linear.weight.shape)}")
        model.set_submodule(name, LowRankLinear.from_linear(linear, rank))
