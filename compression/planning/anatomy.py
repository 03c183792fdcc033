"""What of a model costs bytes and time, as plain data: its weights, and how many layers, heads and neurons it has.

In: a model. Out: :class:`Anatomy`, numpy arrays and counts. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compression.models.layers import find_stack, select_linears
from compression.models.units import UnitGroup, list_head_groups, list_neuron_groups
from runtimes.errors import UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The parts of a model.

    Attributes:
        weights: Of the linears of its encoder layers, [outputs, inputs], two for one that became factors.
        tables: (rows, columns) of every other matrix: embeddings, heads, poolers.
        vectors: Numbers in everything else.
        layers: Encoder layers.
        heads: Attention heads in all layers; None where they cannot be told apart.
        neurons: Feed-forward neurons in all layers, likewise.
    """

    weights: tuple[NDArray[np.float32], ...]
    tables: tuple[tuple[int, int], ...]
    vectors: int
    layers: int
    heads: int | None
    neurons: int | None


def read_anatomy(model: nn.Module) -> Anatomy:
    """Describe a model; its weights are not copied.

    Raises:
        UnsupportedModel: it has no encoder layers.
    """
    linears = select_linears(model).values()
    inside = {id(linear.weight) for linear in linears}
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return Anatomy(
        weights=tuple(linear.weight.detach().numpy() for linear in linears),
        tables=tuple((len(one), one[0].numel()) for one in others if one.dim() > 1),
        vectors=sum(one.numel() for one in others if one.dim() < 2),
        layers=len(list(model.get_submodule(find_stack(model)).children())),
        heads=_count(model, list_head_groups),
        neurons=_count(model, list_neuron_groups),
    )


def _count(model: nn.Module, list_groups: Callable[[nn.Module], list[UnitGroup]]) -> int | None:
    try:
        return sum(group.count for group in list_groups(model))
    except UnsupportedModel:
        return None
