"""Structured pruning: attention heads and feed-forward neurons leave the model, different ones in each layer.

In: a BERT-like encoder of transformers (BERT, RoBERTa, ELECTRA, CamemBERT, XLM-R, ERNIE, LayoutLM, ...) and what to
keep in each layer. Out: the same model with smaller linears. Imports torch.

Heads: Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019 (arXiv:1905.10650).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


def list_layers(model: nn.Module) -> list[nn.Module]:
    """Return the encoder layers in order: modules with ``attention.self``, ``intermediate.dense`` and ``output``.

    Raises:
        ValueError: there are none, so the model is not laid out like BERT.
    """
    layers: list[Any] = list(model.modules())
    found = [
        module
        for module in layers
        if hasattr(module, "intermediate") and hasattr(getattr(module, "attention", None), "self")
    ]
    if not found:
        raise ValueError("the model has no encoder layers laid out like BERT's")
    return found


def prune_heads(model: nn.Module, keep: Mapping[int, Sequence[int]]) -> None:
    """Keep only the heads named for each layer; layers not named stay whole.

    Raises:
        ValueError: no head would be left, or one does not exist.
    """
    layers: list[Any] = list_layers(model)
    for layer, heads in keep.items():
        attention = layers[layer].attention.self
        kept = _check_kept(heads, int(attention.num_attention_heads), f"heads of layer {layer}")
        size = int(attention.attention_head_size)
        rows = torch.tensor([head * size + row for head in kept for row in range(size)])
        for name in ("query", "key", "value"):
            setattr(attention, name, _keep_outputs(getattr(attention, name), rows))
        layers[layer].attention.output.dense = _keep_inputs(layers[layer].attention.output.dense, rows)
        resize_attention(attention, len(kept))


def prune_neurons(model: nn.Module, keep: Mapping[int, Sequence[int]]) -> None:
    """Keep only the feed-forward neurons named for each layer; layers not named stay whole.

    Raises:
        ValueError: no neuron would be left, or one does not exist.
    """
    layers: list[Any] = list_layers(model)
    for layer, neurons in keep.items():
        first = layers[layer].intermediate.dense
        kept = torch.tensor(_check_kept(neurons, first.out_features, f"neurons of layer {layer}"))
        layers[layer].intermediate.dense = _keep_outputs(first, kept)
        layers[layer].output.dense = _keep_inputs(layers[layer].output.dense, kept)


def resize_attention(attention: nn.Module, heads: int) -> None:
    """Tell a BERT-like self-attention how many heads its linears now make."""
    module: Any = attention
    module.num_attention_heads = heads
    module.all_head_size = heads * int(module.attention_head_size)


def _check_kept(kept: Iterable[int], count: int, what: str) -> list[int]:
    ordered = sorted(set(kept))
    if not ordered or ordered[0] < 0 or ordered[-1] >= count:
        raise ValueError(f"{what}: cannot keep {ordered} of {count}")
    return ordered


def _keep_outputs(linear: nn.Linear, rows: torch.Tensor) -> nn.Linear:
    made = nn.Linear(linear.in_features, len(rows), bias=linear.bias is not None)
    with torch.no_grad():
        made.weight.copy_(linear.weight[rows])
        if linear.bias is not None:
            made.bias.copy_(linear.bias[rows])
    return made


def _keep_inputs(linear: nn.Linear, columns: torch.Tensor) -> nn.Linear:
    made = nn.Linear(len(columns), linear.out_features, bias=linear.bias is not None)
    with torch.no_grad():
        made.weight.copy_(linear.weight[:, columns])
        if linear.bias is not None:
            made.bias.copy_(linear.bias)
    return made
