"""An ``.onnx`` file as a program: checked, its axes named as ours, its weights looked at, nothing traced.

In: a Source of kind ``onnx``. Out: a Program without a reference; a decoder is edited, and so compared with the file
that it was. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from exporter.source import GENERATION, Source, find_context, infer_task, read_config
from exporter.tracing.brought_decoder import adopt_decoder, make_brought_cases
from exporter.tracing.program import CUSTOM_TASK, Program
from exporter.tracing.weights import check_weights
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.onnx_file import locate_external_data, read_header

# Whose operators ONNX Runtime has.
_DOMAINS = ("ai.onnx", "com.microsoft")
_TASK_OF_OUTPUT = {"last_hidden_state": "feature-extraction", "start_logits": "question-answering"}


def read_onnx(source: Source, opset: int | None) -> Program:
    """Read the file and the files of its weights.

    Raises:
        CorruptArtifact: its external data is missing or lies outside its folder.
        UnsupportedModel: it is damaged, of another opset than asked for, a weight holds NaN or infinity, or an
            operator is of nobody we know.
    """
    try:
        header = read_header(source.path)
    except CorruptArtifact as error:
        # A model from the user is not an artifact of ours: exit code 4, not 8.
        raise UnsupportedModel(error.what, where=error.where, cure=error.cure) from error
    locate_external_data(source.path, header.external)
    try:
        model = ir.load(source.path)
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise UnsupportedModel(
            f"the file is damaged: {str(error).strip().partition(chr(10))[0]}",
            where=source.reference,
            cure="fetch or export it again",
        ) from error
    found = model.opset_imports.get("", 0)
    if opset is not None and opset != found:
        raise UnsupportedModel(
            f"the model is of opset {found}, {opset} was asked for",
            where=source.reference,
            cure=f"leave --opset out, or export the PyTorch model with opset {opset}",
        )
    _refuse_custom_operators(model, source.reference)
    cache = adopt_decoder(model, header.inputs, source.reference)
    findings = check_weights(_list_weights(model))
    config = read_config(source.path.parent) if (source.path.parent / "config.json").is_file() else {}
    # Of an encoder only this name is a limit: a T5 has n_positions, and takes any length.
    limit = config.get("max_position_embeddings") if cache is None else find_context(config)
    task = source.task or (_guess_task(source.path, model, config) if cache is None else GENERATION)
    brought = None if cache is None else make_brought_cases(source.path, model, cache)
    labels = config.get("id2label") or {} if task.endswith("-classification") else {}
    return Program(
        model=model,
        reference=None if brought is None else brought[0],
        cases=() if brought is None else brought[1],
        task=task,
        labels=tuple(str(labels[key]) for key in sorted(labels, key=int)),
        max_length=limit if isinstance(limit, int) and limit > 0 else None,
        findings=findings,
        cache=cache,
    )


def _refuse_custom_operators(model: ir.Model, reference: str) -> None:
    """Refuse what ONNX Runtime, which judges every export, cannot run: it would name no node."""
    for node in model.graph.all_nodes():
        if node.domain and not node.domain.startswith(_DOMAINS) and node.op_identifier() not in model.functions:
            raise UnsupportedModel(
                f"{node.op_type} is a custom operator, of the domain {node.domain}",
                where=f"{reference}:{node.name}",
                cure="export the model without it, from operators of ONNX",
            )


def _list_weights(model: ir.Model) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for value in model.graph.initializers.values():
        tensor = value.const_value
        # A vector is a weight; a scalar may be the minus infinity of a mask.
        if tensor is not None and tensor.dtype.is_floating_point() and tensor.size > 1 and tensor.dtype.bitwidth >= 16:
            yield str(value.name), tensor.numpy()


def _guess_task(path: Path, model: ir.Model, config: dict[str, object]) -> str:
    if config.get("architectures"):
        return infer_task(path.parent, config)
    names = [value.name for value in model.graph.outputs]
    return next((_TASK_OF_OUTPUT[name] for name in names if name in _TASK_OF_OUTPUT), CUSTOM_TASK)
