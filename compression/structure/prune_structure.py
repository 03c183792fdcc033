"""Structured pruning: attention heads and feed-forward neurons leave the model, different ones in each layer.

In: a model, the units of its layers and which of them stay. Out: the same model with smaller linears. Imports torch.

Heads: Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019 (arXiv:1905.10650).
Reconstruction: the linear that read the units is fitted again, by least squares, to what it gave before: He, Zhang and
Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017 (arXiv:1707.06168).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from compression.models.moments import Moments
from compression.models.turned_linear import make_like
from compression.models.units import UnitGroup, read_head_size
from compression.pruning.masks import PRUNED_FROM, measure_zeros

# How far the fit may trust directions that the data hardly shows: a share of the mean variance of an input.
_DAMPING = 0.01


def prune_units(model: nn.Module, group: UnitGroup, keep: Iterable[int], moments: Moments | None = None) -> None:
    """Keep only some units of a layer.

    Args:
        model: Edited in place.
        group: The layer's units.
        keep: Their places, counted from 0.
        moments: Of the inputs of ``group.target`` before the units leave: with them what stays is fitted to stand in
            for what leaves.

    Raises:
        ValueError: no unit would be left, or one does not exist.
    """
    kept = _check_kept(keep, group)
    if len(kept) == group.count:
        return
    columns = torch.tensor([unit * group.size + column for unit in kept for column in range(group.size)])
    for source in group.sources:
        rows = torch.tensor(source.list_rows(kept, group.count))
        model.set_submodule(source.path, _keep_outputs(_get_linear(model, source.path), rows), strict=True)
    target = _get_linear(model, group.target)
    smaller = _keep_inputs(target, columns)
    if moments is not None:
        _stand_in(smaller, target, columns, moments)
    model.set_submodule(group.target, smaller, strict=True)
    if group.attention is not None:
        resize_attention(model.get_submodule(group.attention), len(kept))


def count_heads(attention: nn.Module) -> int | None:
    """Return how many heads a self-attention says it has; None for one that takes what its linears give, as Llama's."""
    module: Any = attention
    if hasattr(module, "num_attention_heads") and hasattr(module, "all_head_size"):
        return int(module.num_attention_heads)
    return int(module.num_heads) if hasattr(module, "num_heads") and hasattr(module, "head_dim") else None


def resize_attention(attention: nn.Module, heads: int) -> None:
    """Tell a self-attention how many heads its linears now make."""
    module: Any = attention
    width = heads * read_head_size(attention)
    counts = dict.fromkeys(("num_attention_heads", "n_heads", "num_heads"), heads)
    for name, value in {**counts, **dict.fromkeys(("all_head_size", "dim", "split_size"), width)}.items():
        if hasattr(module, name):
            setattr(module, name, value)


def _stand_in(smaller: nn.Linear, target: nn.Linear, columns: torch.Tensor, moments: Moments) -> None:
    """Fit ``smaller`` to the outputs that ``target`` had in ``moments``; the bias takes what is constant.

    A fit would fill the zeros of a pruned ``target``: there the bias takes up the mean of what leaves, and no more.
    """
    moment = moments.to_fit(biased=target.bias is not None)
    gone = torch.ones(len(moment), dtype=torch.bool)
    gone[columns] = False
    # What leaves, told by what stays: [stays, leaves].
    shared = moment[columns][:, gone]
    is_pruned = measure_zeros([target.weight]) >= PRUNED_FROM
    told = torch.zeros_like(shared) if is_pruned else torch.linalg.solve(_damp(moment[columns][:, columns]), shared)
    lost = target.weight.detach().double()[:, gone]
    with torch.no_grad():
        smaller.weight.add_(lost @ told.T)
        if smaller.bias is not None:
            smaller.bias.add_(lost @ (moments.mean[gone] - told.T @ moments.mean[columns]))


def _damp(moment: torch.Tensor) -> torch.Tensor:
    level = moment.diagonal().mean().clamp_min(torch.finfo(moment.dtype).tiny)
    return moment + _DAMPING * level * torch.eye(len(moment))


def _check_kept(kept: Iterable[int], group: UnitGroup) -> list[int]:
    ordered = sorted(set(kept))
    if not ordered or ordered[0] < 0 or ordered[-1] >= group.count:
        what = "neurons" if group.attention is None else "heads"
        raise ValueError(f"{what} of {group.name}: cannot keep {ordered} of {group.count}")
    return ordered


def _get_linear(model: nn.Module, name: str) -> nn.Linear:
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def _keep_outputs(linear: nn.Linear, rows: torch.Tensor) -> nn.Linear:
    made = make_like(linear, linear.in_features, len(rows))
    with torch.no_grad():
        made.weight.copy_(linear.weight[rows])
        if linear.bias is not None:
            made.bias.copy_(linear.bias[rows])
    return made


def _keep_inputs(linear: nn.Linear, columns: torch.Tensor) -> nn.Linear:
    made = make_like(linear, len(columns), linear.out_features)
    with torch.no_grad():
        made.weight.copy_(linear.weight[:, columns])
        if linear.bias is not None:
            made.bias.copy_(linear.bias)
    return made
