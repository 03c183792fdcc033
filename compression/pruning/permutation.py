"""The order of inputs that lets N:M pruning keep more: exact, since what makes the inputs is put in the same order.

In: an encoder and the N:M pattern. Out: the same function, its feed-forward neurons and the columns of its values in
another order. Imports torch.

Pool and Yu, "Channel Permutations for N:M Sparsity", NeurIPS 2021. The search is ours: one column is taken out of every
group, what each group would keep with each of these is a table, and the best exchanges of two are made all at once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.models.units import UnitGroup, list_head_groups, list_neuron_groups
from compression.pruning.patterns import NOfM
from runtimes.errors import UnsupportedModel

# What is kept must grow by this share in a few rounds, or they were the last.
_ENOUGH = 1e-5
_PATIENCE = 4
_MOST_ROUNDS = 100
# Gains are differences of sums in float32: what is below this share of such a sum is rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The share of a weight's magnitude that the pattern keeps, in the order it had and in the order it has."""

    before: float
    after: float


def permute_inputs(
    model: nn.Module, names: Collection[str], pattern: NOfM, generator: torch.Generator
) -> dict[str, Kept]:
    """Reorder the inputs of the named linears where what makes them can be reordered too.

    That is the last linear of a feed-forward, whose inputs are the rows of those before, and the linear behind
    attention, whose inputs are the rows of the values, within each head.

    Args:
        model: Edited in place; it computes what it did.
        names: Linears that will be pruned; the others stay as they are.
        pattern: How they will be pruned.
        generator: Of the search.

    Returns:
        What was reordered, by the name of the linear.

    Raises:
        UnsupportedModel: no layer is laid out in a way that is known, or none of the named is such a linear.
    """
    groups = [*list_neuron_groups(model), *list_head_groups(model)]
    chosen = [group for group in groups if group.target in names and _can_permute(group, pattern)]
    if not chosen:
        raise UnsupportedModel(
            "no linear to prune has inputs that can be reordered",
            where=type(model).__name__,
            cure="add the second linears of the feed-forwards to layers, or leave out permute",
        )
    return {group.target: _permute_group(model, group, pattern, generator) for group in chosen}


def find_order(magnitudes: Tensor, pattern: NOfM, generator: torch.Generator) -> Tensor:
    """Return an order of the columns in which the pattern keeps more, int64 [columns].

    Args:
        magnitudes: What each weight counts, [rows, columns], none negative.
        pattern: Its groups must divide the columns.
        generator: Draws which columns are tried together.
    """
    # [columns, rows]: a column lies in one piece.
    columns = magnitudes.T.contiguous()
    groups = torch.arange(len(columns)).view(-1, pattern.of)
    kept, idle = measure_kept(magnitudes, pattern), 0
    for _ in range(_MOST_ROUNDS):
        for _ in range(pattern.of):
            # Another column of each group comes first, and is the one that is offered.
            shuffled = torch.rand(groups.shape, generator=generator).argsort(dim=1)
            groups = _exchange(columns, groups.gather(1, shuffled), pattern)
        reached = measure_kept(columns[groups.flatten()].T, pattern)
        idle = 0 if reached - kept > _ENOUGH * kept else idle + 1
        kept = max(kept, reached)
        if idle == _PATIENCE:
            break
    return groups.flatten()


def measure_kept(magnitudes: Tensor, pattern: NOfM) -> float:
    """Return the sum that the pattern keeps of magnitudes [rows, columns]."""
    best = magnitudes.reshape(len(magnitudes), -1, pattern.of).topk(pattern.kept, dim=2).values
    return float(best.sum(dtype=torch.float64))


def _can_permute(group: UnitGroup, pattern: NOfM) -> bool:
    if group.attention is None:
        return group.count % pattern.of == 0 and group.count > pattern.of
    # Values that several heads read, or that one linear makes with queries and keys, have an order of their own.
    values = group.sources[-1]
    apart = values.parts == 1 and values.size == group.size
    return apart and group.size % pattern.of == 0 and group.size > pattern.of


def _permute_group(model: nn.Module, group: UnitGroup, pattern: NOfM, generator: torch.Generator) -> Kept:
    target = _get_linear(model, group.target)
    magnitudes = target.weight.detach().abs()
    width = magnitudes.shape[1] if group.attention is None else group.size
    pieces = [
        start + find_order(magnitudes[:, start : start + width], pattern, generator)
        for start in range(0, magnitudes.shape[1], width)
    ]
    order = torch.cat(pieces)
    with torch.no_grad():
        # Of attention's linears the last makes the values; the order of queries and keys is another matter.
        for source in group.sources if group.attention is None else group.sources[-1:]:
            rows = source.list_rows(order.tolist(), group.count) if group.attention is None else order
            linear = _get_linear(model, source.path)
            linear.weight.copy_(linear.weight[rows])
            if linear.bias is not None:
                linear.bias.copy_(linear.bias[rows])
        target.weight.copy_(target.weight[:, order])
    whole = float(magnitudes.sum(dtype=torch.float64))
    return Kept(
        before=measure_kept(magnitudes, pattern) / whole, after=measure_kept(magnitudes[:, order], pattern) / whole
    )


def _exchange(columns: Tensor, groups: Tensor, pattern: NOfM) -> Tensor:
    """Exchange the first columns of groups, two groups at a time, where both together keep more.

    Args:
        columns: [columns, rows].
        groups: Places of columns, [groups, of].
        pattern: Of the groups.
    """
    offered, rest = columns[groups[:, 0]], columns[groups[:, 1:]]
    # A newcomer takes the place of the last that the others keep, where it is larger.
    last = rest.topk(pattern.kept, dim=1).values[:, -1]
    # sum(max(a, b)) = (sum(a) + sum(b) + sum(|a - b|)) / 2; the sums of one alone are the same for every exchange.
    with_each = torch.cdist(last, offered, p=1.0)
    own = with_each.diagonal()
    gains = (with_each + with_each.T - own[:, None] - own[None, :]).triu(1)
    taken = groups.clone()
    free = [True] * len(groups)
    pairs = (gains > _ROUNDING * offered.sum(dim=1).mean()).nonzero()
    for place in gains[pairs[:, 0], pairs[:, 1]].argsort(descending=True, stable=True).tolist():
        one, other = pairs[place].tolist()
        if free[one] and free[other]:
            free[one] = free[other] = False
            taken[one, 0], taken[other, 0] = groups[other, 0], groups[one, 0]
    return taken


def _get_linear(model: nn.Module, name: str) -> nn.Linear:
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear), name
    return linear
