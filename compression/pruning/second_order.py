"""Pruning in one shot, without labels: what stays is moved to stand in for what leaves, as the layer's inputs tell.

In: linears, a share, a pattern and some samples. Out: the same linears, edited. Imports torch.

What a removed weight costs, and what others can make up for, is a quadratic form in the inputs' second moment: Hassibi
and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1992. All outputs go through the
inputs together, with one factor for all: Frantar and Alistarh, "SparseGPT", ICML 2023 (arXiv:2301.00774).
Ours is the bias: it takes up what is constant in the change, which leaves the covariance to be fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.models.layer_walk import make_collector
from compression.models.layers import find_stacks
from compression.models.moments import Moments
from compression.pruning.patterns import Blocks, NOfM, Pattern, choose_kept
from compression.samples import Batch

# Masks are chosen for so many columns at a time, knowing what was removed before; each strip loses the same share.
# Blocks are few, and want a choice; single weights want to know. MiniLM at 50 %, 1 - cosine of embeddings: 1x1 0.0575
# with 16 columns, 0.0583 with 128, 0.0707 with 384; 16x1 0.257, 0.231, 0.211, and 0.210 at full width, which is slow.
_STRIP_OF_WEIGHTS, _STRIP_OF_BLOCKS = 16, 384
# Added to the diagonal, as a share of its mean: the paper's and enough for a few dozen texts.
_DAMPING = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A pruned weight [outputs, inputs], its bias [outputs] or None, and the share of the outputs' variance lost."""

    weight: Tensor
    bias: Tensor | None
    error: float


def prune_second_order(
    model: nn.Module, linears: Mapping[str, nn.Linear], share: float, pattern: Pattern, batches: Sequence[Batch]
) -> dict[str, float]:
    """Prune layer after layer, each by the inputs that it has once those before it are pruned.

    Args:
        model: Edited in place.
        linears: What to prune, by name, in the order of the forward pass.
        share: Of each weight.
        pattern: What leaves together.
        batches: What to look at: some hundred texts.

    Returns:
        By name the error of :class:`Fit`.

    Raises:
        ValueError: the share or a shape does not fit the pattern.
        DataError: there are no batches.
    """
    errors = {}
    collect = make_collector(model, batches)
    for names in _group_by_layer(model, list(linears)):
        moments = collect(names)
        for name in names:
            linear = linears[name]
            fit = fit_pruned(linear.weight.detach(), linear.bias, moments[name], share, pattern)
            with torch.no_grad():
                linear.weight.copy_(fit.weight)
                if fit.bias is not None:
                    linear.bias.copy_(fit.bias)
            errors[name] = fit.error
    return errors


def fit_pruned(weight: Tensor, bias: Tensor | None, moments: Moments, share: float, pattern: Pattern) -> Fit:
    """Choose what leaves a weight, and move what stays.

    Args:
        weight: float32 [outputs, inputs].
        bias: float32 [outputs], or None.
        moments: Of the inputs.
        share: Of the units of every strip of columns.
        pattern: What leaves together.

    Raises:
        ValueError: the share or the shape does not fit the pattern.
    """
    before = weight.double()
    moment = moments.to_fit(biased=bias is not None)
    pruned = _sweep(before, _factorise(moment), share, pattern)
    change = pruned - before
    left = float(((change @ moment) * change).sum())
    whole = float(((before @ moment) * before).sum())
    return Fit(
        weight=pruned.to(weight.dtype),
        bias=None if bias is None else (bias.detach().double() - change @ moments.mean).to(bias.dtype),
        error=left / whole if whole > 0 else 0.0,
    )


def _group_by_layer(model: nn.Module, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names of one encoder layer together, in order: to look at the data for each alone would take long."""
    stacks = tuple(f"{name}." for name in find_stacks(model))
    groups: dict[str, list[str]] = {}
    for name in names:
        stack = next((stack for stack in stacks if name.startswith(stack)), None)
        key = name if stack is None else stack + name.removeprefix(stack).partition(".")[0]
        groups.setdefault(key, []).append(name)
    yield from groups.values()


def _factorise(moment: Tensor) -> Tensor:
    """Return the upper triangle U with U'U the inverse of the damped moment."""
    level = moment.diagonal().mean().clamp_min(torch.finfo(moment.dtype).tiny)
    damped = moment + _DAMPING * level * torch.eye(len(moment), dtype=moment.dtype)
    # With rows and columns in reverse order the triangle comes from one factorisation, and no inverse is formed.
    lower = torch.linalg.cholesky(damped.flip(0, 1))
    identity = torch.eye(len(moment), dtype=moment.dtype)
    return torch.linalg.solve_triangular(lower, identity, upper=False).flip(0, 1)


def _sweep(weight: Tensor, factor: Tensor, share: float, pattern: Pattern) -> Tensor:
    """Go through the inputs from left to right; what a column loses, those to its right make up for."""
    # Turned, so that the weights of one input lie side by side; a copy, also where turning moves nothing.
    columns = weight.T.clone(memory_format=torch.contiguous_format)
    inputs = len(columns)
    strip = _find_strip(pattern)
    for begin in range(0, inputs, strip):
        end = min(begin + strip, inputs)
        worth = (columns[begin:end] / factor.diagonal()[begin:end, None]).square()
        gone = ~choose_kept(worth.T, share, pattern).T
        lost = torch.zeros_like(worth)
        for column in range(begin, end):
            place = column - begin
            lost[place] = columns[column] * gone[place] / factor[column, column]
            columns[column:end] -= torch.outer(factor[column, column:end], lost[place])
        columns[begin:end].masked_fill_(gone, 0.0)
        columns[end:] -= factor[begin:end, end:].T @ lost
    return columns.T.contiguous()


def _find_strip(pattern: Pattern) -> int:
    match pattern:
        case NOfM():
            # Each group is chosen knowing what the groups before it lost.
            return pattern.of
        case Blocks():
            return _STRIP_OF_WEIGHTS if pattern.high * pattern.wide == 1 else _STRIP_OF_BLOCKS
