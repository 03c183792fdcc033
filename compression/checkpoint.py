"""Checkpoints of compressed models: safetensors, the config, and ``stepdown.json`` that says what was changed.

In: a transformers model and its compressed modules. Out: a directory that :func:`load_compressed` turns back into the
same model. No pickle. Imports torch and safetensors; transformers' model is used through its own methods only.

``stepdown.json``::

    {"schema": 2,
     "modules": {"encoder.layer.0.intermediate.dense": {"kind": "linear", "inputs": 32, "outputs": 40, "bias": true},
                 "encoder.layer.1.output.dense": {"kind": "low_rank", "inputs": 64, ...}, ...},
     "heads": {"encoder.layer.0.attention.self": 3},
     "recipe": {...}, "steps": [{"do": "prune", "options": {...}, "facts": {...}, "seconds": 12.3}],
     "source": {"model.safetensors": "<sha256>", ...},
     "export": {"precision": "int8"}}

``modules`` holds the linears and what took the place of a module of the configuration, ``heads`` how many a
self-attention has left, ``export`` what ``stepdown export`` does where it is not told otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save
from torch import nn

from compression.factors.low_rank import LowRankEmbedding, LowRankLinear
from compression.gates.gated_channels import Absorbed, GatedConv2d, GatedFeedForward
from compression.gates.gated_layer import GatedLayer
from compression.models.turned_linear import TurnedLinear
from compression.rounding.fake_quantise import FakeQuantisedEmbedding, FakeQuantisedLinear
from compression.rounding.level_modules import LevelEmbedding, LevelLinear
from compression.structure.prune_structure import count_heads, resize_attention
from runtimes.atomic import write_bytes, write_text
from runtimes.errors import UnsupportedModel

STRUCTURE_NAME = "stepdown.json"
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
#: What :func:`save_compressed` writes.
CHECKPOINT_FILES = (CONFIG_NAME, WEIGHTS_NAME, STRUCTURE_NAME)
SCHEMA = 2

_CURE = "write the checkpoint again"


class Kind(Protocol):
    """A module that takes the place of another, whole: what lies below it is its own affair."""

    kind: ClassVar[str]

    def describe(self) -> dict[str, Any]:
        """Return plain data to make it again, weights aside."""
        ...

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> Self:
        """Make it of what :meth:`describe` gave, its weights yet to be loaded."""
        ...


class Wrapper(Protocol):
    """A module around another, which is described as if it stood alone: a gate before a layer."""

    kind: ClassVar[str]

    def describe(self) -> dict[str, Any]:
        """Return plain data to wrap again, weights aside."""
        ...

    @classmethod
    def wrap(cls, module: nn.Module, described: Mapping[str, Any]) -> Self:
        """Put what :meth:`describe` told of around ``module``."""
        ...


#: What can take the place of a module; ``kind`` in the file to its class.
KINDS: Mapping[str, type[Kind]] = {
    kind.kind: kind
    for kind in (
        Absorbed,
        FakeQuantisedEmbedding,
        FakeQuantisedLinear,
        GatedConv2d,
        LevelEmbedding,
        LevelLinear,
        LowRankEmbedding,
        LowRankLinear,
        TurnedLinear,
    )
}
#: What can stand around a module.
WRAPPERS: Mapping[str, type[Wrapper]] = {kind.kind: kind for kind in (GatedFeedForward, GatedLayer)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a checkpoint says of its making; see the module for the parts."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Mapping[str, Any], ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)


def save_compressed(model: nn.Module, directory: Path, record: Record | None = None) -> None:
    """Write ``config.json``, ``model.safetensors`` (tied weights once) and ``stepdown.json`` into ``directory``.

    A model without a configuration, as a factory makes one, has no ``config.json``.

    Raises:
        OutputError: no room.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.architectures = [type(model).__name__]
        config.save_pretrained(directory)
    write_bytes(directory / WEIGHTS_NAME, save(_list_tensors(model), metadata={"format": "pt"}))
    made = record or Record()
    document = {
        "schema": SCHEMA,
        "modules": _describe_modules(model),
        "heads": _describe_heads(model),
        "recipe": made.recipe,
        "steps": list(made.steps),
        "source": made.source,
        "export": made.export,
    }
    write_text(directory / STRUCTURE_NAME, json.dumps(document, indent=2) + "\n")


def read_record(directory: Path) -> Record:
    """Return what the checkpoint says of its making; an empty record where it is no compressed one.

    Raises:
        UnsupportedModel: ``stepdown.json`` cannot be read.
    """
    path = directory / STRUCTURE_NAME
    if not path.is_file():
        return Record()
    try:
        document = _read_document(path)
        return Record(
            recipe=document["recipe"],
            steps=tuple(document["steps"]),
            source=document["source"],
            export=document["export"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedModel(f"the record cannot be used: {error}", where=str(path), cure=_CURE) from error


def load_compressed(model: nn.Module, directory: Path) -> nn.Module:
    """Give ``model``, made from the checkpoint's configuration, the structure and weights of ``directory``.

    Raises:
        UnsupportedModel: the structure or the weights cannot be read, or do not fit the model.
    """
    path = directory / STRUCTURE_NAME
    try:
        document = _read_document(path)
        for name, described in document["modules"].items():
            _restore_module(model, name, described)
        for name, heads in document["heads"].items():
            resize_attention(model.get_submodule(name), int(heads))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(f"the structure cannot be used: {error}", where=str(path), cure=_CURE) from error
    try:
        load_model(model, str(directory / WEIGHTS_NAME), strict=True)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise UnsupportedModel(
            f"the weights do not fit the structure: {str(error).strip()[:300]}",
            where=str(directory / WEIGHTS_NAME),
            cure=_CURE,
        ) from error
    return model


def _list_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers, tied ones once."""
    named = model.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(named.items())}
    return {name: named[name].detach().contiguous() for name in first.values()}


def _read_document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, this stepdown reads {SCHEMA}")
    return document


def _describe_modules(model: nn.Module) -> dict[str, dict[str, Any]]:
    described: dict[str, dict[str, Any]] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        changed: Any = module
        if type(module) in KINDS.values():
            inside = (*inside, f"{name}.")
            described[name] = {"kind": changed.kind, **changed.describe()}
        elif type(module) in WRAPPERS.values():
            described[name] = {"kind": changed.kind, **changed.describe()}
        elif name.startswith(inside):
            continue  # the factors of a low-rank linear are part of it, unless they were replaced in turn
        elif isinstance(module, nn.Linear):
            described[name] = _describe_linear(module)
    return described


def _describe_linear(linear: nn.Linear) -> dict[str, Any]:
    sizes = {"inputs": linear.in_features, "outputs": linear.out_features, "bias": linear.bias is not None}
    return {"kind": "linear", **sizes}


def _describe_heads(model: nn.Module) -> dict[str, int]:
    counted = ((name, count_heads(module)) for name, module in model.named_modules())
    return {name: count for name, count in counted if count is not None}


def _restore_module(model: nn.Module, name: str, described: Mapping[str, Any]) -> None:
    present = model.get_submodule(name)
    if isinstance(present, nn.Linear) and _describe_linear(present) == described:
        return  # to replace it would break the tie of a masked LM's decoder to its embeddings
    kind = described["kind"]
    if kind in WRAPPERS:
        made: Any = WRAPPERS[kind].wrap(present, described)
    elif kind in KINDS:
        made = KINDS[kind].from_description(described)
    elif kind == "linear":
        made = nn.Linear(int(described["inputs"]), int(described["outputs"]), bias=bool(described["bias"]))
    else:
        raise ValueError(f"unknown kind of module '{kind}'")
    _share_weight(present, made)
    model.set_submodule(name, made, strict=True)


def _share_weight(present: nn.Module, made: nn.Module) -> None:
    """Keep the parameter itself where it fits: an output layer may be tied to the embeddings."""
    old, new = getattr(present, "weight", None), getattr(made, "weight", None)
    if isinstance(old, nn.Parameter) and isinstance(new, nn.Parameter) and old.shape == new.shape:
        made.weight = old
