"""Rounding to whole steps, with gradients for the values and for the size of the step; and the first size to try.

In: values and scales. Out: rounded values. Imports torch.

Learned step size quantization: Esser et al., ICLR 2020 (arXiv:1902.08153).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

# AdamW moves every parameter by about the learning rate, whatever its gradient. A weight of 0.03 changes by a thirtieth
# of its size for every unit of that, a scale of 0.001 by a thousand times its size: it is learned as a logarithm,
# stretched so that scales change about as fast as the weights they round.
_STRETCH = 16.0
# The largest value as a multiple of the range that is kept: from nothing cut off to most of it, in equal ratios.
_FIRST_RATIOS = tuple(0.95**power for power in range(41))


def limits(bits: int) -> tuple[int, int]:
    """Return the lowest and the highest whole number of so many bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def round_to_steps(values: torch.Tensor, scale: torch.Tensor, count: int, bits: int = 8) -> torch.Tensor:
    """Round to whole steps of ``scale`` inside the range of ``bits``, with gradients for both (Esser et al., eq. 1-3).

    Args:
        values: Any shape.
        scale: Positive, broadcastable to ``values``.
        count: How many values share one scale; its gradient is divided by ``sqrt(count * highest)``.
        bits: 8 or 4.
    """
    low, high = limits(bits)
    damping = 1.0 / math.sqrt(count * high)
    step = scale * damping + (scale - scale * damping).detach()
    steps = (values / step).clamp(low, high)
    return (steps + (steps.round() - steps).detach()) * step


def round_rows(rows: torch.Tensor, scales: torch.Tensor, bits: int) -> torch.Tensor:
    """Round rows that have one scale each, or one for each of their equal blocks.

    Args:
        rows: float [..., width].
        scales: float [...], or [..., blocks], positive.
        bits: 8 or 4.
    """
    if scales.dim() == rows.dim() - 1:
        return round_to_steps(rows, scales.unsqueeze(-1), rows.shape[-1], bits)
    blocks = rows.unflatten(-1, (scales.shape[-1], -1))
    return round_to_steps(blocks, scales.unsqueeze(-1), blocks.shape[-1], bits).flatten(-2)


@torch.no_grad()
def fit_scales(groups: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the scale for each group of values with the least squared error of those tried, float [...].

    Esser et al. begin with ``2 mean(|x|) / sqrt(highest)``: right for 2 to 4 bits, at 8 it spends half of the range on
    what never occurs (of normal values, on those beyond nine deviations).

    Args:
        groups: float [..., values].
        bits: 8 or 4.
    """
    high = limits(bits)[1]
    whole = groups.abs().amax(dim=-1).div(high)
    # A dead group needs a scale all the same, and one that half precision holds: any other's.
    whole = whole.masked_fill(whole == 0, float(whole.max()) or 1.0)
    best, least = whole, torch.full_like(whole, torch.inf)
    for ratio in _FIRST_RATIOS:
        scale = whole * ratio
        error = (round_to_steps(groups, scale.unsqueeze(-1), 1, bits) - groups).square().sum(dim=-1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def pick_values(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return about ``count`` of the values [..., channels], and the largest: what first scales are fitted to.

    Whole tokens are picked: every n-th value would be of the same few channels, whatever the others hold.
    """
    tokens = values.detach().flatten(0, -2)
    picked = tokens[:: -(-tokens.numel() // count)]
    return torch.cat([picked.flatten(), tokens.abs().max()[None]])


@contextmanager
def learn_scales(scales: Sequence[tuple[nn.Module, str]]) -> Iterator[None]:
    """Let the named parameters learn while the context is open: as logarithms, so that none can become negative."""
    for module, name in scales:
        module.get_parameter(name).requires_grad_(True)
        parametrize.register_parametrization(module, name, _Logarithm())
    try:
        yield
    finally:
        for module, name in scales:
            parametrize.remove_parametrizations(module, name)
            module.get_parameter(name).requires_grad_(False)


class _Logarithm(nn.Module):
    """A positive parameter as its stretched logarithm."""

    def forward(self, logarithm: torch.Tensor) -> torch.Tensor:
        return (logarithm * _STRETCH).exp()

    def right_inverse(self, scale: torch.Tensor) -> torch.Tensor:
        return scale.log() / _STRETCH
