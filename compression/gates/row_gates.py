"""Small networks that look at the hidden states of each row and score them: whether to go on, or which parts to run.

In: what is seen of each row. Out: scores, one or more a row. Imports torch.

Scores learn a yes or no through a relaxation: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR
2017 (arXiv:1611.01144), its forward pass hard, its backward pass soft.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from runtimes.errors import UnsupportedModel

# Wide enough to tell a large margin of either sign; at 384 features its product is 1/70 of one token of a layer.
_NEURONS = 32
_LARGEST_NOISE = 1 - 1e-6
#: What gates begin with: the logistic function of 2 is 0.88, near the model as it was.
FIRST_SCORE = 2.0
_UNREACHED = 1e9  # finite: JSON has no infinity


class RowGate(nn.Module):
    """Scores of rows from what was seen of each: one hidden layer, :data:`_NEURONS` wide.

    Its weights are its own parameters and no ``nn.Linear``: what prunes or rounds the linears of a model leaves them.
    They learn within :func:`let_gates_learn` alone. A training that pays nothing for what runs would soon run it all.
    """

    def __init__(self, features: int, outputs: int = 1, *, bias: float = 0.0) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs
        # Zeros until drawn or loaded: every row gets the bias.
        self.inner = _hold(torch.zeros(_NEURONS, features))
        self.inner_bias = _hold(torch.zeros(_NEURONS))
        self.outer = _hold(torch.zeros(outputs, _NEURONS))
        self.outer_bias = _hold(torch.full((outputs,), bias))

    @property
    def learns(self) -> bool:
        """Whether a training may change it."""
        return self.outer.requires_grad

    def draw(self, generator: torch.Generator) -> RowGate:
        """Draw the first weights."""
        with torch.no_grad():
            self.inner.normal_(0.0, self.inner.shape[1] ** -0.5, generator=generator)
            self.outer.normal_(0.0, 0.1 * self.outer.shape[1] ** -0.5, generator=generator)
        return self

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Map float32 [rows, features] to scores [rows, outputs]."""
        inner = nn.functional.relu(nn.functional.linear(seen, self.inner, self.inner_bias))
        return nn.functional.linear(inner, self.outer, self.outer_bias)


@contextmanager
def let_gates_learn(gates: Iterable[RowGate]) -> Iterator[None]:
    """Let gates learn while the context is open."""
    held = [parameter for gate in gates for parameter in gate.parameters()]
    for parameter in held:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(False)


def summarise(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return what a gate sees of each row, [rows, 2 * features]: the first token and the mean of all.

    Args:
        hidden: float32 [rows, tokens, features].
        mask: What attention of the layer is given, see :func:`find_tokens`.
    """
    return torch.cat([hidden[:, 0], average_tokens(hidden, mask)], dim=-1)


def measure_width(layer: nn.Module) -> int:
    """Return how many features the hidden states have that a layer takes: the inputs of its first linear.

    Raises:
        UnsupportedModel: it has no linear.
    """
    modules: list[Any] = list(layer.modules())
    for module in modules:
        if hasattr(module, "in_features"):
            return int(module.in_features)
    raise UnsupportedModel(
        "the layer has no linear, so the width of its hidden states is not known",
        where=type(layer).__name__,
        cure="leave it out of the recipe",
    )


def find_tokens(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return bool [rows, tokens], true for tokens that are no padding; None where nothing is padded.

    Args:
        mask: [rows, tokens] with 0 for padding; or [rows, heads, queries, tokens], true (bool) or 0 (what is added to
            scores) where attention goes.
    """
    if mask is None:
        return None
    if mask.dim() == 2:
        return mask != 0
    # Padding is hidden from every query: any of them tells.
    row = mask[:, 0, -1, :]
    return row if row.dtype == torch.bool else row == 0


def average_tokens(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over tokens [rows, features], padding left out; zeros for a row without any token."""
    tokens = find_tokens(mask)
    if tokens is None:
        return hidden.mean(dim=1)
    weights = tokens.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def draw_choices(scores: torch.Tensor) -> torch.Tensor:
    """Return 0 or 1 for each score, drawn with the logistic function's probability; gradients are of a soft choice.

    Draws from torch's own generator, as dropout does.
    """
    uniform = torch.rand_like(scores).clamp(1 - _LARGEST_NOISE, _LARGEST_NOISE)
    soft = torch.sigmoid(scores + torch.log(uniform) - torch.log1p(-uniform))
    return (soft > 0.5).to(soft.dtype) + soft - soft.detach()


def to_score(probability: float) -> float:
    """Return the score that stands for a probability: its logit, and at 0 and 1 what no score reaches."""
    if probability in (0.0, 1.0):
        return _UNREACHED if probability else -_UNREACHED
    return math.log(probability / (1 - probability))


def _hold(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
