"""Linears and embeddings as two thin factors.

In: a module, a rank, and for the better half of the methods what its inputs look like. Out: the factors. Imports torch.

* ``svd``: truncation of the SVD, the best approximation of a rank in the Frobenius norm (Eckart and Young, 1936).
* ``activation-svd``: the best approximation of the *outputs* over given data: the SVD is taken of the weight times a
  root of the inputs' covariance, which is then divided out. Chen et al., "DRONE: Data-aware Low-rank Compression for
  Large NLP Models", NeurIPS 2021; Wang et al., "SVD-LLM" (arXiv:2403.07378). The mean of the inputs goes into the bias.
  An embedding's rows count as often as the data has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

from compression.models.moments import Moments

# Directions the data hardly shows still get some weight, a share of the mean variance: other data may show them.
_DAMPING = 1e-3
# A row that the data never has counts as much as one that it has once in so many tokens, on average.
_UNSEEN = 0.05


class LowRankLinear(nn.Module):
    """``up(down(x))``: (inputs -> rank, no bias), then (rank -> outputs, with the bias)."""

    kind: ClassVar[str] = "low_rank"

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        inputs, outputs, rank = (int(described[name]) for name in ("inputs", "outputs", "rank"))
        return cls(inputs, outputs, rank, bias=bool(described["bias"]))

    def describe(self) -> dict[str, Any]:
        """Return its sizes, plain data."""
        bias = self.up.bias is not None
        return {"inputs": self.in_features, "outputs": self.out_features, "rank": self.rank, "bias": bias}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) to (..., outputs)."""
        product: torch.Tensor = self.up(self.down(inputs))
        return product


class LowRankEmbedding(nn.Module):
    """``up(codes(ids))``: a short code for each row, then (rank -> columns, with a bias)."""

    kind: ClassVar[str] = "low_rank_embedding"

    def __init__(self, num_embeddings: int, embedding_dim: int, rank: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.rank = num_embeddings, embedding_dim, rank
        self.padding_idx = padding_idx
        self.codes = nn.Embedding(num_embeddings, rank)
        self.up = nn.Linear(rank, embedding_dim)

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make one with no weights yet, from what :meth:`describe` gave."""
        rows, columns, rank = (int(described[name]) for name in ("rows", "columns", "rank"))
        return cls(rows, columns, rank, padding_idx=described["padding"])

    def describe(self) -> dict[str, Any]:
        """Return its sizes, plain data."""
        sizes = {"rows": self.num_embeddings, "columns": self.embedding_dim, "rank": self.rank}
        return {**sizes, "padding": self.padding_idx}

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map ids (...) to (..., columns)."""
        rows: torch.Tensor = self.up(self.codes(ids))
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """A weight as ``left @ diag(values) @ right``, largest values first; float64.

    Attributes:
        left: [outputs, values].
        values: What each direction adds to the outputs, the square root of an energy.
        right: [values, inputs].
        mean: What the inputs are on average [inputs]; None where that is not looked at.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor
    mean: torch.Tensor | None = None

    def find_rank(self, energy: float) -> int:
        """Return the smallest rank that keeps the share ``energy`` of the sum of squares."""
        kept = self.values.square().cumsum(0)
        return 1 + int((kept < energy * kept[-1]).sum().clamp_max(len(kept) - 1))


def decompose(linear: nn.Linear, moments: Moments | None = None) -> Decomposition:
    """Decompose a linear's weight [outputs, inputs]; with ``moments`` of its inputs, for the outputs they give."""
    double = linear.weight.detach().double()
    if moments is None:
        left, values, right = torch.linalg.svd(double, full_matrices=False)
        return Decomposition(left=left, values=values, right=right)
    moment = moments.to_fit(biased=linear.bias is not None)
    damping = _DAMPING * moment.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    spread, axes = torch.linalg.eigh(moment + damping * torch.eye(len(moment), dtype=torch.float64))
    root = spread.clamp_min(damping).sqrt()
    left, values, right = torch.linalg.svd((double @ axes) * root, full_matrices=False)
    return Decomposition(left=left, values=values, right=(right / root) @ axes.T, mean=moments.mean)


def decompose_rows(weight: torch.Tensor, counts: torch.Tensor) -> Decomposition:
    """Decompose an embedding's rows less their mean, [rows, columns], each row counted as often as it is read.

    The result is of the transposed weight, as a linear from rows: ``left`` [columns, values], ``right`` [values, rows].

    Args:
        weight: [rows, columns].
        counts: How often each row is read, [rows].
    """
    double = weight.double()
    often = counts.double() / counts.double().mean().clamp_min(torch.finfo(torch.float64).tiny) + _UNSEEN
    often = often / often.sum()
    mean = often @ double
    left, values, right = torch.linalg.svd(((double - mean) * often.sqrt()[:, None]).T, full_matrices=False)
    return Decomposition(left=left, values=values, right=right / often.sqrt(), mean=mean)


def make_low_rank(linear: nn.Linear, parts: Decomposition, rank: int) -> LowRankLinear:
    """Return the factors of ``linear`` at a rank; the singular values go half to each.

    Where the mean of the inputs is known the bias makes up for it.
    """
    made = LowRankLinear(linear.in_features, linear.out_features, rank, bias=linear.bias is not None)
    root = parts.values[:rank].sqrt()
    down, up = root[:, None] * parts.right[:rank], parts.left[:, :rank] * root
    with torch.no_grad():
        made.down.weight.copy_(down)
        made.up.weight.copy_(up)
        if linear.bias is not None:
            made.up.bias.copy_(linear.bias)
            if parts.mean is not None:
                lost = linear.weight.double() @ parts.mean - up @ (down @ parts.mean)
                made.up.bias.add_(lost)
    return made


def make_low_rank_embedding(embedding: nn.Embedding, parts: Decomposition, rank: int) -> LowRankEmbedding:
    """Return the factors of ``embedding`` at a rank, from :func:`decompose_rows`."""
    assert parts.mean is not None
    made = LowRankEmbedding(embedding.num_embeddings, embedding.embedding_dim, rank, embedding.padding_idx)
    root = parts.values[:rank].sqrt()
    with torch.no_grad():
        made.codes.weight.copy_((root[:, None] * parts.right[:rank]).T)
        made.up.weight.copy_(parts.left[:, :rank] * root)
        made.up.bias.copy_(parts.mean)
    return made
