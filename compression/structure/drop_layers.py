"""Whole layers leave: an encoder with fewer of them, its others as they are.

In: a model and which layers stay. Out: the same model, shallower, its configuration told. Imports torch.

Scores by activation: Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect"
(arXiv:2403.03853). Evenly spaced layers: Sanh et al., "DistilBERT" (arXiv:1910.01108).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from compression.models.forward import run_body
from compression.models.inputs import drop_padding
from compression.samples import Batch
from runtimes.errors import DataError


def drop_layers(model: nn.Module, stack: str, keep: Sequence[int]) -> None:
    """Keep only the layers at some places of the list at ``stack``, in order.

    Raises:
        ValueError: no layer would be left, or one does not exist.
    """
    layers = _get_stack(model, stack)
    kept = sorted(set(keep))
    if not kept or kept[0] < 0 or kept[-1] >= len(layers):
        raise ValueError(f"cannot keep the layers {kept} of {len(layers)}")
    _put_stack(model, stack, [layers[place] for place in kept])
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.num_hidden_layers = len(kept)
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = [config.layer_types[place] for place in kept]
    for place, at in enumerate(kept):
        inside: list[Any] = list(layers[at].modules())
        for module in inside:
            if hasattr(module, "layer_idx"):
                module.layer_idx = place


def score_layers(model: nn.Module, stack: str, batches: Iterable[Batch]) -> torch.Tensor:
    """Return for each layer 1 - the mean cosine over tokens of what goes in and what comes out, [layers]; no labels.

    Raises:
        DataError: there are no batches.
    """
    layers = _get_stack(model, stack)
    turned = torch.zeros(len(layers), dtype=torch.float64)
    tokens = torch.zeros(len(layers), dtype=torch.float64)
    mask: list[torch.Tensor | None] = [None]

    def note(place: int, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:  # noqa: ANN401 - a tensor, or a tuple that begins with one
        given = args[0] if args else named["hidden_states"]
        made = output if isinstance(output, torch.Tensor) else output[0]
        cosines = nn.functional.cosine_similarity(drop_padding(given, mask[0]), drop_padding(made, mask[0]), dim=-1)
        turned[place] += (1 - cosines.double()).sum()
        tokens[place] += cosines.numel()

    hooks = [layer.register_forward_hook(partial(note, place), with_kwargs=True) for place, layer in enumerate(layers)]
    was_training = model.training
    try:
        with torch.no_grad():
            for batch in batches:
                mask[0] = batch.inputs.get("attention_mask")
                run_body(model.eval(), batch.inputs)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not tokens.any():
        raise DataError("there is no data to run through the model", cure="give --data or --unlabelled")
    return turned / tokens.clamp_min(1)


def choose_by_score(scores: torch.Tensor, keep: int) -> list[int]:
    """Return the places of the ``keep`` best layers, in order; of equal ones the first stay."""
    return sorted(scores.argsort(descending=True, stable=True)[:keep].tolist())


def choose_evenly(count: int, keep: int) -> list[int]:
    """Return places spread evenly over ``count`` layers, the first and the last among them."""
    if keep == 1:
        return [0]
    return [round(place * (count - 1) / (keep - 1)) for place in range(keep)]


def choose_by_loss(model: nn.Module, stack: str, keep: int, loss: Callable[[nn.Module], float]) -> list[int]:
    """Return the layers left when again and again the one goes without which ``loss`` of the model is the least."""
    whole = _get_stack(model, stack)
    kept = list(range(len(whole)))
    try:
        while len(kept) > keep:
            losses = []
            for out in kept:
                _put_stack(model, stack, [whole[place] for place in kept if place != out])
                losses.append(loss(model))
            del kept[min(range(len(kept)), key=losses.__getitem__)]
    finally:
        model.set_submodule(stack, whole, strict=True)
    return kept


def _get_stack(model: nn.Module, stack: str) -> nn.ModuleList:
    layers = model.get_submodule(stack)
    assert isinstance(layers, nn.ModuleList)
    return layers


def _put_stack(model: nn.Module, stack: str, layers: Sequence[nn.Module]) -> None:
    model.set_submodule(stack, nn.ModuleList(layers), strict=True)
