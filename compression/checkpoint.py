"""Checkpoints of compressed models: safetensors, the config, and ``stepdown.json`` that says what was changed.

In: a transformers model and its compressed modules. Out: a directory that :func:`load_compressed` turns back into the
same model. No pickle. Imports torch and safetensors; transformers' model is used through its own methods only.

``stepdown.json``::

    {"schema": 1,
     "linears": {"encoder.layer.0.intermediate.dense": {"kind": "linear", "inputs": 32, "outputs": 40, "bias": true},
                 "encoder.layer.1.output.dense": {"kind": "low_rank", "inputs": 64, "outputs": 32, "bias": true,
                                                  "rank": 8},
                 "encoder.layer.1.intermediate.dense": {"kind": "fake_quantised", ...}},
     "heads": {"encoder.layer.0.attention.self": 3}}

``linears`` holds what replaces a linear of the configuration, ``heads`` how many a self-attention has left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from compression.fake_quantise import FakeQuantisedLinear
from compression.low_rank import LowRankLinear
from compression.prune_structure import resize_attention
from runtimes.atomic import write_text
from runtimes.errors import UnsupportedModel

STRUCTURE_NAME = "stepdown.json"
WEIGHTS_NAME = "model.safetensors"
SCHEMA = 1

_CURE = "write the checkpoint again"


def save_compressed(model: nn.Module, directory: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` (tied weights once) and ``stepdown.json`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    save_model(model, str(directory / WEIGHTS_NAME), metadata={"format": "pt"})
    structure = {"schema": SCHEMA, "linears": _describe_linears(model), "heads": _describe_heads(model)}
    write_text(directory / STRUCTURE_NAME, json.dumps(structure, indent=2) + "\n")


def load_compressed(model: nn.Module, directory: Path) -> nn.Module:
    """Give ``model``, made from the checkpoint's configuration, the structure and weights of ``directory``.

    Raises:
        UnsupportedModel: the structure or the weights cannot be read, or do not fit the model.
    """
    path = directory / STRUCTURE_NAME
    try:
        structure = json.loads(path.read_text(encoding="utf-8"))
        if structure["schema"] != SCHEMA:
            raise ValueError(f"schema {structure['schema']}, this stepdown reads {SCHEMA}")
        for name, described in structure["linears"].items():
            if not _is_plain_as_described(model.get_submodule(name), described):
                model.set_submodule(name, _make_linear(described), strict=True)
        for name, heads in structure["heads"].items():
            resize_attention(model.get_submodule(name), int(heads))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(f"the structure cannot be used: {error}", where=str(path), cure=_CURE) from error
    try:
        load_model(model, str(directory / WEIGHTS_NAME), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UnsupportedModel(
            f"the weights do not fit the structure: {str(error).strip()[:300]}",
            where=str(directory / WEIGHTS_NAME),
            cure=_CURE,
        ) from error
    return model


def _describe_linears(model: nn.Module) -> dict[str, dict[str, Any]]:
    linears: dict[str, dict[str, Any]] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside):
            continue  # the factors of a low-rank linear are part of it
        if isinstance(module, LowRankLinear):
            inside = (*inside, f"{name}.")
            linears[name] = {"kind": "low_rank", "rank": module.rank, **_describe_sizes(module, module.up.bias)}
        elif isinstance(module, FakeQuantisedLinear):
            linears[name] = {"kind": "fake_quantised", **_describe_sizes(module, module.bias)}
        elif isinstance(module, nn.Linear):
            linears[name] = {"kind": "linear", **_describe_sizes(module, module.bias)}
    return linears


def _describe_sizes(module: Any, bias: torch.Tensor | None) -> dict[str, Any]:  # noqa: ANN401 - one of the three
    return {"inputs": module.in_features, "outputs": module.out_features, "bias": bias is not None}


def _describe_heads(model: nn.Module) -> dict[str, int]:
    modules: list[tuple[str, Any]] = list(model.named_modules())
    return {
        name: int(module.num_attention_heads)
        for name, module in modules
        if hasattr(module, "num_attention_heads") and hasattr(module, "all_head_size")
    }


def _is_plain_as_described(module: nn.Module, described: dict[str, Any]) -> bool:
    # Replacing a linear that fits already would break the tie of a masked LM's decoder to its embeddings.
    sizes = {"kind": "linear", **_describe_sizes(module, module.bias)} if isinstance(module, nn.Linear) else {}
    return sizes == described


def _make_linear(described: dict[str, Any]) -> nn.Module:
    inputs, outputs, bias = int(described["inputs"]), int(described["outputs"]), bool(described["bias"])
    match described["kind"]:
        case "linear":
            return nn.Linear(inputs, outputs, bias=bias)
        case "low_rank":
            return LowRankLinear(inputs, outputs, int(described["rank"]), bias=bias)
        case "fake_quantised":
            return FakeQuantisedLinear(inputs, outputs, bias=bias)
        case other:
            raise ValueError(f"unknown kind of linear '{other}'")
