"""Which modules of a model can be divided into parts with a gate, and doing it.

In: a model and names. Out: the same model with gated modules. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from compression.gates.gated_channels import Absorbed, GatedConv2d, GatedFeedForward
from compression.gates.row_gates import FIRST_SCORE, RowGate
from runtimes.errors import UnsupportedModel

_INTERMEDIATE = "intermediate"

Gated = GatedConv2d | GatedFeedForward


def list_divisible(model: nn.Module) -> list[str]:
    """Return the names of convolutions, and of the ``intermediate`` of encoder layers laid out like BERT's.

    Raises:
        UnsupportedModel: there are none.
    """
    modules: list[tuple[str, Any]] = list(model.named_modules())
    convolutions = [name for name, module in modules if type(module) is nn.Conv2d and module.groups == 1]
    forwards = [f"{name}.{_INTERMEDIATE}" for name, module in modules if _has_feed_forward(module)]
    if not convolutions and not forwards:
        raise UnsupportedModel(
            "the model has no convolutions, and no feed-forwards laid out like BERT's",
            where=type(model).__name__,
            cure="leave gate-channels out of the recipe",
        )
    return convolutions + forwards


def add_gates(model: nn.Module, names: Iterable[str], parts: int, generator: torch.Generator) -> dict[str, Gated]:
    """Put gated modules in the place of those named, in their mode; at first the gates want nearly everything.

    Returns:
        The gated modules by name.

    Raises:
        UnsupportedModel: one has fewer channels than parts, or cannot be divided.
    """
    return {name: _divide_one(model, name, parts, generator) for name in names}


def _divide_one(model: nn.Module, name: str, parts: int, generator: torch.Generator) -> Gated:
    present = model.get_submodule(name)
    if isinstance(present, nn.Conv2d):
        gate = RowGate(present.in_channels, parts, bias=FIRST_SCORE).draw(generator)
        made: Gated = GatedConv2d.from_conv(present, gate)
    else:
        layer = name.removesuffix(f".{_INTERMEDIATE}")
        second = model.get_submodule(f"{layer}.output.dense")
        first, activation = present.get_submodule("dense"), present.get_submodule("intermediate_act_fn")
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        gate = RowGate(first.in_features, parts, bias=FIRST_SCORE).draw(generator)
        made = GatedFeedForward.from_linears(first, activation, second, gate)
        model.set_submodule(f"{layer}.output.dense", Absorbed(), strict=True)
    model.set_submodule(name, made.train(present.training), strict=True)
    return made


def _has_feed_forward(layer: Any) -> bool:  # noqa: ANN401 - any module
    first = getattr(getattr(layer, _INTERMEDIATE, None), "dense", None)
    second = getattr(getattr(layer, "output", None), "dense", None)
    activation = getattr(getattr(layer, _INTERMEDIATE, None), "intermediate_act_fn", None)
    return type(first) is nn.Linear and type(second) is nn.Linear and isinstance(activation, nn.Module)
