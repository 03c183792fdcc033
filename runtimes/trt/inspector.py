"""What became of each layer in a plan: TensorRT's engine inspector as a table.

In: the inspector's JSON. Out: :class:`LayerRow`, and whether expected layers run as asked. Pure; imports no TensorRT.

Source: NVIDIA, Developer Guide, "Engine Inspector"; 10.x writes ``Format/Datatype``, 11.x ``Format`` and ``DataType``.
Layers of every profile but the first are called ``NAME [profile N]`` (trt-engine-explorer, engine_plan.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.trt.options import Expectation

# TensorRT's words, in formats ("Int8 NC/32HW32 format") and as types ("INT8"), and numpy's.
_TYPES = (
    ("uint8", "uint8"), ("int8", "int8"), ("int4", "int4"), ("fp8", "float8"), ("float8", "float8"),
    ("bf16", "bfloat16"), ("bfloat16", "bfloat16"), ("fp16", "float16"), ("half", "float16"),
    ("fp32", "float32"), ("float", "float32"), ("int64", "int64"), ("int32", "int32"), ("bool", "bool"),
)  # fmt: skip
_PROFILE = re.compile(r"\[profile (\d+)\]", re.IGNORECASE)
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer of a plan.

    ``nodes`` are the ONNX nodes that were fused into it, ``precision`` is the type of its first input, ``sparse`` says
    whether its weights are multiplied as 2:4.
    """

    name: str
    kind: str
    precision: str
    output: str
    tactic: str
    sparse: bool
    nodes: tuple[str, ...]


def read_layers(text: str) -> tuple[LayerRow, ...]:
    """Read the inspector's JSON for a whole engine.

    Raises:
        CorruptArtifact: it is not what an inspector writes, or was built without details.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(
            f"the engine inspector's answer cannot be read: {error}", where="inspector", cure="report it with the plan"
        ) from error
    if any(not isinstance(layer, Mapping) for layer in layers):
        raise CorruptArtifact("the plan holds layer names alone", where="inspector", cure="build it with stepdown")
    return tuple(_read_layer(layer) for layer in layers)


def require_picked(layers: Sequence[LayerRow], expected: Expectation) -> None:
    """Check that every expected node ended in a layer that runs as asked.

    Raises:
        UnsupportedModel: some run in another type, dense, or are in no layer; they are named.
    """
    unpicked = describe_unpicked(layers, expected)
    if unpicked:
        raise UnsupportedModel(
            f"TensorRT did not pick what was asked: {unpicked}",
            where="plan",
            cure="see `stepdown inspect PLAN`; export with --allow-unpicked, or with another --precision",
        )


def describe_unpicked(layers: Sequence[LayerRow], expected: Expectation) -> str:
    """Return what does not run as asked, with the first names; empty where all does."""
    wide, dense = find_unpicked(layers, expected)
    problems = [
        f"{len(names)} of {len(asked)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for names, asked, what in (
            (wide, expected.int8, "layers do not run in INT8"),
            (dense, expected.sparse, "layers with 2:4 weights run dense"),
        )
        if names
    ]
    return "; ".join(problems)


def find_unpicked(layers: Sequence[LayerRow], expected: Expectation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (nodes expected in INT8 that are not, nodes expected sparse that are not).

    A node may lie in several layers, in its product and in kernels around it: one that is as expected will do, in each
    profile, for each has kernels of its own.
    """
    profiles = {_read_profile(layer) for layer in layers} or {0}
    narrow = {(_read_profile(layer), node) for layer in layers if layer.precision == "int8" for node in layer.nodes}
    sparse = {(_read_profile(layer), node) for layer in layers if layer.sparse for node in layer.nodes}
    wide = tuple(name for name in expected.int8 if any((profile, name) not in narrow for profile in profiles))
    dense = tuple(name for name in expected.sparse if any((profile, name) not in sparse for profile in profiles))
    return wide, dense


def _read_profile(layer: LayerRow) -> int:
    match = _PROFILE.search(layer.name)
    return int(match[1]) if match is not None else 0


def _read_layer(layer: Mapping[str, Any]) -> LayerRow:
    inputs, outputs = layer.get("Inputs", ()), layer.get("Outputs", ())
    tactic = str(layer.get("TacticName", ""))
    return LayerRow(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("ParameterType") or layer.get("LayerType", "")),
        precision=_read_type(inputs),
        output=_read_type(outputs),
        tactic=tactic,
        # The flag is that of convolutions; elsewhere the kernel's name is all there is.
        sparse=bool(int(layer.get("HasSparseWeights", 0))) or "sparse" in tactic.lower() or "_sp_" in tactic.lower(),
        nodes=tuple(dict.fromkeys(_ONNX_LAYER.findall(str(layer.get("Metadata", ""))))),
    )


def _read_type(tensors: Sequence[Mapping[str, Any]]) -> str:
    if not tensors:
        return ""
    first = tensors[0]
    told = str(first.get("DataType") or first.get("Datatype") or first.get("Format/Datatype", "")).lower()
    return next((ours for theirs, ours in _TYPES if theirs in told), told)
