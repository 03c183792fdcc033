"""How weights are brought to two or three levels with a scale for each output, and how they learn through that.

In: float weights, or modules about to be trained. Out: levels and scales, or the same modules, rounding while they
learn. Imports torch.

* Ternary weight networks: Li and Liu, 2016 (arXiv:1605.04711). Weights below 0.7 of the mean magnitude of their row
  become 0, the others -1 or 1; the scale is the mean magnitude of those others.
* Binary weights: the signs, as in BinaryConnect (Courbariaux et al., 2015, arXiv:1511.00363), times the mean magnitude
  of the row, as in XNOR-Net (Rastegari et al., 2016, arXiv:1603.05279).

Float weights lie behind the levels and get the gradients of the levels as they are (straight through). They are not
clipped as BinaryConnect's are: the scale follows them, so that none can grow without effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

from compression.rounding.low_bit import Form

# Li and Liu, eq. 6: near the best for weights spread evenly or normally.
_THRESHOLD = 0.7


def ternarise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return levels -1, 0 and 1 [rows, width] and scales [rows] for float [rows, width]; a row of zeros has scale 0."""
    size = rows.abs()
    kept = size > _THRESHOLD * size.mean(dim=-1, keepdim=True)
    scale = (size * kept).sum(dim=-1) / kept.sum(dim=-1).clamp_min(1)
    return rows.sign() * kept, scale


def binarise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return levels -1 and 1 [rows, width] and scales [rows] for float [rows, width]; zero counts as positive."""
    return torch.where(rows < 0, -1.0, 1.0), rows.abs().mean(dim=-1)


#: How each form chooses levels and scales.
CHOOSE: Mapping[Form, Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]] = {
    "binary": binarise,
    "ternary": ternarise,
}


@contextmanager
def learn_through(modules: Iterable[nn.Module], form: Form) -> Iterator[None]:
    """Let the weights of ``modules`` act as levels while the context is open; then they are the floats behind them.

    Exact zeros of pruned weights stay zero.
    """
    held = list(modules)
    for module in held:
        weight = module.get_parameter("weight")
        parametrize.register_parametrization(module, "weight", _StraightThrough(form, weight.detach()))
    try:
        yield
    finally:
        for module in held:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


class _StraightThrough(nn.Module):
    """The levels times their scales in the forward pass, and nothing at all in the backward pass."""

    kept: torch.Tensor | None

    def __init__(self, form: Form, weight: torch.Tensor) -> None:
        super().__init__()
        self._choose = CHOOSE[form]
        self.register_buffer("kept", None if bool(weight.all()) else weight != 0)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.kept is not None:
            weight = weight * self.kept
        with torch.no_grad():
            levels, scale = self._choose(weight)
            rounded = levels.mul_(scale.unsqueeze(-1))
        passed: torch.Tensor = _PassGradient.apply(weight, rounded)
        return passed


class _PassGradient(torch.autograd.Function):
    """Gives the second, and hands its gradient to the first: one pass over memory less than to add the difference."""

    @staticmethod
    def forward(ctx: object, weight: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ARG004
        return gradient, None
