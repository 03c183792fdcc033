"""What can leave an encoder as a whole: the attention heads and feed-forward neurons of each layer.

In: a model. Out: for each layer which linears make a unit and which one reads it, as plain data; every way to score
units and to remove them works on that. Imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from runtimes.errors import UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitGroup:
    """The units of one layer, side by side in the outputs of ``sources`` and in the inputs of ``target``.

    Attributes:
        name: The path of the layer.
        sources: Paths of the linears that make the units.
        target: Path of the linear that reads them.
        size: Columns of one unit: the head size, or 1.
        count: How many units there are.
        attention: Path of the self-attention that has to be told how many heads it has; None for neurons.
    """

    name: str
    sources: tuple[str, ...]
    target: str
    size: int
    count: int
    attention: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where a family of encoders keeps the parts of a layer, as paths below the layer."""

    attention: str
    projections: tuple[str, ...]
    joined: str
    up: str
    down: str


_LAYOUTS = (
    # BERT, RoBERTa, ELECTRA, CamemBERT, XLM-R, ERNIE, LayoutLM, ...
    _Layout(
        attention="attention.self",
        projections=("attention.self.query", "attention.self.key", "attention.self.value"),
        joined="attention.output.dense",
        up="intermediate.dense",
        down="output.dense",
    ),
    # DistilBERT
    _Layout(
        attention="attention",
        projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        joined="attention.out_lin",
        up="ffn.lin1",
        down="ffn.lin2",
    ),
)


def list_head_groups(model: nn.Module) -> list[UnitGroup]:
    """Return the heads of every encoder layer, in order.

    Raises:
        UnsupportedModel: there are none whose linears can be told apart, or a count of heads does not divide them.
    """
    groups = []
    for name, layer in model.named_modules():
        layout = _find_layout(layer)
        if layout is not None and _has_only(layer.get_submodule(layout.attention), layer, layout):
            groups.append(_describe_heads(name, layer, layout))
    if not groups:
        raise _refuse(model, "attention heads")
    return groups


def list_neuron_groups(model: nn.Module) -> list[UnitGroup]:
    """Return the feed-forward neurons of every encoder layer, in order.

    Raises:
        UnsupportedModel: there are none whose linears can be told apart.
    """
    groups = []
    for name, layer in model.named_modules():
        for layout in _LAYOUTS:
            up = _get(layer, layout.up)
            if isinstance(up, nn.Linear) and isinstance(_get(layer, layout.down), nn.Linear):
                paths = [_join(name, path) for path in (layout.up, layout.down)]
                groups.append(UnitGroup(name=name, sources=(paths[0],), target=paths[1], size=1, count=up.out_features))
    if not groups:
        raise _refuse(model, "feed-forward neurons")
    return groups


def _find_layout(layer: nn.Module) -> _Layout | None:
    for layout in _LAYOUTS:
        if all(isinstance(_get(layer, path), nn.Linear) for path in (*layout.projections, layout.joined)):
            return layout
    return None


def _has_only(attention: nn.Module, layer: nn.Module, layout: _Layout) -> bool:
    """Whether the attention learns nothing but its linears; ConvBERT's convolution, say, has a place for each head."""
    linears = [layer.get_submodule(path) for path in (*layout.projections, layout.joined)]
    known = {id(parameter) for linear in linears for parameter in linear.parameters()}
    return all(id(parameter) in known for parameter in attention.parameters())


def _describe_heads(name: str, layer: nn.Module, layout: _Layout) -> UnitGroup:
    attention: Any = layer.get_submodule(layout.attention)
    query: Any = layer.get_submodule(layout.projections[0])
    size, width = int(attention.attention_head_size), int(query.out_features)
    where = _join(name, layout.attention)
    if width % size:
        raise UnsupportedModel(
            f"{width} outputs are not divisible into heads of {size}",
            where=where,
            cure="give every head the same size, or leave out prune-heads",
        )
    return UnitGroup(
        name=name,
        sources=tuple(_join(name, path) for path in layout.projections),
        target=_join(name, layout.joined),
        size=size,
        count=width // size,
        attention=where,
    )


def _get(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _join(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def _refuse(model: nn.Module, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"the {what} of {type(model).__name__} cannot be told apart: no layer is laid out like BERT's or DistilBERT's",
        where=type(model).__name__,
        cure="use a recipe for its architecture: prune, low-rank and quantise-aware work on any linear",
    )
