"""Loads a ``.pt2`` exported program, and only one that needs no unpickling of code.

In: the path of a file written by ``torch.export.save``. Out: the ``ExportedProgram``, what it takes and
gives, or the counts of its parts.
``torch.export.load`` falls back to unrestricted unpickling for sample inputs, and uses it for weights marked
``use_pickle``; whoever wrote such a file could run code here. So the archive is looked through first.
Torch is imported inside the functions.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.artifact import TensorSpec
from runtimes.errors import CorruptArtifact, UnsupportedModel

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_CURE = "save it again with torch.export.save"
# What the archive is made of (torch/export/pt2_archive/constants.py).
_GRAPH = re.compile(r"(^|/)models/[^/]+\.json$")
_WEIGHTS = re.compile(r"(^|/)data/weights/[^/]+_weights_config\.json$")


def load_pt2(path: Path) -> ExportedProgram:
    """Load an exported program after checking that nothing in it can run code.

    Raises:
        CorruptArtifact: it is not there, damaged, or holds pickled objects.
        UnsupportedModel: it was written by another version of torch's archive format.
    """
    _require_plain_archive(path)
    import torch

    try:
        return torch.export.load(path)
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedModel(f"torch cannot load the program: {reason}", where=str(path), cure=_CURE) from error


def count_contents(path: Path) -> tuple[int, int]:
    """Return the nodes of the graph and the elements of all weights, without torch and without reading a weight.

    Raises:
        CorruptArtifact: it is not there, or damaged.
        UnsupportedModel: it was written by another version of torch's archive format.
    """
    if not path.is_file():
        raise CorruptArtifact("there is no such file", where=str(path), cure=_CURE)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (graph,) = (json.loads(archive.read(name)) for name in names if _GRAPH.search(name))
            (weights,) = (json.loads(archive.read(name)) for name in names if _WEIGHTS.search(name))
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, EOFError) as error:
        raise CorruptArtifact(f"the archive is damaged: {error}", where=str(path), cure=_CURE) from error
    except ValueError as error:
        raise UnsupportedModel("the archive is of an older format", where=str(path), cure=_CURE) from error
    try:
        # Tied weights share a file.
        stored = {meta["path_name"]: meta["tensor_meta"]["sizes"] for meta in weights["config"].values()}
        elements = sum(math.prod(size["as_int"] for size in sizes) for sizes in stored.values())
        return len(graph["graph_module"]["graph"]["nodes"]), elements
    except (KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(f"the archive lacks {error}", where=str(path), cure=_CURE) from error


def _require_plain_archive(path: Path) -> None:
    if not path.is_file():
        raise CorruptArtifact("there is no such file", where=str(path), cure=_CURE)
    if not zipfile.is_zipfile(path):
        raise CorruptArtifact("not an exported program: damaged or no archive", where=str(path), cure=_CURE)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("archive_format") for name in names):
                raise UnsupportedModel("the archive is of an older format", where=str(path), cure=_CURE)
            for name in names:
                _require_plain_member(path, name, archive.read(name) if name.endswith((".json", ".pt")) else b"")
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise CorruptArtifact(f"the archive is damaged: {error}", where=str(path), cure=_CURE) from error


def _require_plain_member(path: Path, name: str, content: bytes) -> None:
    config = json.loads(content) if name.endswith("_config.json") else {}
    pickled = [key for key, meta in config.get("config", {}).items() if meta.get("use_pickle")]
    if pickled or "custom_obj" in name:
        raise CorruptArtifact("it holds pickled objects", where=f"{path}:{(pickled or [name])[0]}", cure=_CURE)
    if name.endswith(".pt") and content:
        _require_plain_tensors(path, name, content)


def _require_plain_tensors(path: Path, name: str, content: bytes) -> None:
    import pickle

    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise CorruptArtifact("it holds more than tensors", where=f"{path}:{name}", cure=_CURE) from error


def describe_program(program: ExportedProgram, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of a program, by name.

    Raises:
        UnsupportedModel: one of them is not a tensor.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature

    def describe(names: Sequence[object], given: Sequence[str]) -> tuple[TensorSpec, ...]:
        return tuple(
            _describe_value(values.get(str(node)), name, path) for node, name in zip(names, given, strict=True)
        )

    inputs = [str(name) for name in signature.user_inputs]
    return describe(signature.user_inputs, inputs), describe(signature.user_outputs, _name_leaves(program))


def _name_leaves(program: ExportedProgram) -> list[str]:
    """Name the outputs: by key where the program returns a mapping of tensors, else ``output_0`` and on."""
    out_spec = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    keys = getattr(out_spec, "context", None)
    if getattr(out_spec, "type", None) is dict and isinstance(keys, list) and len(keys) == count:
        return [str(key) for key in keys]
    return [f"output_{number}" for number in range(count)]


def _describe_value(value: object, name: str, path: Path) -> TensorSpec:
    import torch

    if not isinstance(value, torch.Tensor):
        raise UnsupportedModel(
            "an input or output is not a tensor", where=f"{path}:{name}", cure="export it without it"
        )
    return TensorSpec(
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape),
    )
