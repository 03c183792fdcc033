"""What can leave a model as a whole: the attention heads and feed-forward neurons of each layer.

In: a model. Out: for each layer which linears make a unit and which one reads it, as plain data; every way to score
units and to remove them works on that. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from compression.models.forward import predicts_next
from runtimes.errors import UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSource:
    """A linear that makes units, side by side in its outputs.

    Attributes:
        path: Of the linear.
        size: Outputs of one unit.
        parts: How often the units come one after the other: 3 where one linear makes queries, keys and values.
    """

    path: str
    size: int
    parts: int = 1

    def list_rows(self, kept: Sequence[int], count: int) -> list[int]:
        """Return the outputs that belong to the units ``kept`` of ``count``, in order."""
        starts = [(part * count + unit) * self.size for part in range(self.parts) for unit in kept]
        return [start + row for start in starts for row in range(self.size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitGroup:
    """The units of one layer, made by ``sources`` and side by side in the inputs of ``target``.

    Heads that share a key and a value are one unit: they leave together.

    Attributes:
        name: The path of the layer.
        sources: The linears that make the units.
        target: Path of the linear that reads them.
        size: Inputs of ``target`` that one unit has: the size of its heads, or 1.
        count: How many units there are.
        attention: Path of the self-attention that has to be told how many heads it has; None for neurons.
    """

    name: str
    sources: tuple[UnitSource, ...]
    target: str
    size: int
    count: int
    attention: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where a family of models keeps the parts of a layer, as paths below the layer.

    ``projections`` are those of queries, keys and values, or one linear for all: ``fused`` then says whether they come
    one after the other, or head by head. ``up`` are the linears that make neurons, each ``parts`` times as many.
    """

    attention: str
    joined: str
    up: tuple[str, ...]
    down: str
    projections: tuple[str, ...] = ()
    fused: Literal["parts", "heads"] | None = None
    parts: int = 1


_ENCODERS = (
    # BERT, RoBERTa, ELECTRA, CamemBERT, XLM-R, ERNIE, LayoutLM, ...
    _Layout(
        attention="attention.self",
        projections=("attention.self.query", "attention.self.key", "attention.self.value"),
        joined="attention.output.dense",
        up=("intermediate.dense",),
        down="output.dense",
    ),
    # DistilBERT
    _Layout(
        attention="attention",
        projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        joined="attention.out_lin",
        up=("ffn.lin1",),
        down="ffn.lin2",
    ),
)

_SELF = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_DECODERS = (
    # Llama, Mistral, Qwen, Gemma, OLMo, SmolLM, StableLM, ...
    _Layout(
        attention="self_attn",
        projections=_SELF,
        joined="self_attn.o_proj",
        up=("mlp.gate_proj", "mlp.up_proj"),
        down="mlp.down_proj",
    ),
    # Phi
    _Layout(attention="self_attn", projections=_SELF, joined="self_attn.dense", up=("mlp.fc1",), down="mlp.fc2"),
    # OPT
    _Layout(attention="self_attn", projections=_SELF, joined="self_attn.out_proj", up=("fc1",), down="fc2"),
    # GPT-2, whose Conv1D are linears by now
    _Layout(
        attention="attn",
        projections=("attn.c_attn",),
        fused="parts",
        joined="attn.c_proj",
        up=("mlp.c_fc",),
        down="mlp.c_proj",
    ),
    # GPT-NeoX, Pythia
    _Layout(
        attention="attention",
        projections=("attention.query_key_value",),
        fused="heads",
        joined="attention.dense",
        up=("mlp.dense_h_to_4h",),
        down="mlp.dense_4h_to_h",
    ),
    # Phi-3: queries, keys and values are of unlike sizes in one linear, so that only its neurons can leave
    _Layout(attention="self_attn", joined="self_attn.o_proj", up=("mlp.gate_up_proj",), parts=2, down="mlp.down_proj"),
)
# What an attention calls the size of its heads.
_HEAD_SIZES = ("attention_head_size", "head_dim", "head_size")


def list_head_groups(model: nn.Module) -> list[UnitGroup]:
    """Return the heads of every layer, in order; those that share a key and a value together.

    Raises:
        UnsupportedModel: there are none whose linears can be told apart, or a count of heads does not divide them.
    """
    groups = []
    for name, layer in model.named_modules():
        layout = _find_layout(layer, _list_layouts(model))
        if layout is not None and _has_only(layer.get_submodule(layout.attention), layer, layout):
            groups.append(_describe_heads(name, layer, layout))
    if not groups:
        raise _refuse(model, "attention heads")
    return groups


def list_neuron_groups(model: nn.Module) -> list[UnitGroup]:
    """Return the feed-forward neurons of every layer, in order; a gated one has two linears that make it.

    Raises:
        UnsupportedModel: there are none whose linears can be told apart.
    """
    groups = []
    for name, layer in model.named_modules():
        for layout in _list_layouts(model):
            down: Any = _get(layer, layout.down)
            # A feed-forward by itself may look like a layer of another family.
            whole = layout in _ENCODERS or _get(layer, layout.attention) is not None
            if whole and all(isinstance(_get(layer, path), nn.Linear) for path in (*layout.up, layout.down)):
                sources = tuple(UnitSource(path=_join(name, path), size=1, parts=layout.parts) for path in layout.up)
                target = _join(name, layout.down)
                groups.append(UnitGroup(name=name, sources=sources, target=target, size=1, count=down.in_features))
    if not groups:
        raise _refuse(model, "feed-forward neurons")
    return groups


def _list_layouts(model: nn.Module) -> tuple[_Layout, ...]:
    return _DECODERS if predicts_next(model) else _ENCODERS


def _find_layout(layer: nn.Module, layouts: Sequence[_Layout]) -> _Layout | None:
    for layout in layouts:
        paths = (*layout.projections, layout.joined)
        if layout.projections and all(isinstance(_get(layer, path), nn.Linear) for path in paths):
            return layout
    return None


def _has_only(attention: nn.Module, layer: nn.Module, layout: _Layout) -> bool:
    """Whether the attention learns nothing but its linears, and norms that are the same for every head.

    ConvBERT's convolution, say, has a place for each head.
    """
    if not any(hasattr(attention, name) for name in _HEAD_SIZES):
        return False
    linears = [layer.get_submodule(path) for path in (*layout.projections, layout.joined)]
    known = {id(parameter) for linear in linears for parameter in linear.parameters()}
    size = read_head_size(attention)
    return all(
        id(parameter) in known or ("norm" in name and parameter.shape == (size,))
        for name, parameter in attention.named_parameters()
    )


def _describe_heads(name: str, layer: nn.Module, layout: _Layout) -> UnitGroup:
    where = _join(name, layout.attention)
    size = read_head_size(layer.get_submodule(layout.attention))
    joined: Any = layer.get_submodule(layout.joined)
    linears: list[Any] = [layer.get_submodule(path) for path in layout.projections]
    widths = [int(linear.out_features) for linear in linears]
    # Of keys where they are apart: several queries may share one.
    count = widths[0] // (3 * size) if layout.fused else widths[1] // size
    sizes = {"parts": [size], "heads": [3 * size]}.get(layout.fused or "", [width // max(count, 1) for width in widths])
    parts = 3 if layout.fused == "parts" else 1
    exact = all(one % size == 0 and width == count * one * parts for one, width in zip(sizes, widths, strict=True))
    if not exact or joined.in_features % count:
        raise UnsupportedModel(
            f"{widths[0]} outputs are not divisible into heads of {size}",
            where=where,
            cure="give every head the same size, or leave out prune-heads",
        )
    return UnitGroup(
        name=name,
        sources=tuple(
            UnitSource(path=_join(name, path), size=one, parts=parts)
            for path, one in zip(layout.projections, sizes, strict=True)
        ),
        target=_join(name, layout.joined),
        size=joined.in_features // count,
        count=count,
        attention=where,
    )


def read_head_size(attention: nn.Module) -> int:
    """Return the size of the heads of a self-attention."""
    return next(int(getattr(attention, name)) for name in _HEAD_SIZES if hasattr(attention, name))


def _get(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _join(name: str, path: str) -> str:
    return f"{name}.{path}" if name else path


def _refuse(model: nn.Module, what: str) -> UnsupportedModel:
    known = "Llama's, GPT-2's, OPT's, Phi's or GPT-NeoX's" if predicts_next(model) else "BERT's or DistilBERT's"
    return UnsupportedModel(
        f"the {what} of {type(model).__name__} cannot be told apart: no layer is laid out like {known}",
        where=type(model).__name__,
        cure="use a recipe for its architecture: prune, low-rank and quantise-aware work on any linear",
    )
