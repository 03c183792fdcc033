"""PyTorch to ONNX with proof: trace, name, write, compare.

In: a Source. Out: a directory with ``model.onnx`` (float32), the tokenizer and ``config.json``, and a Traced.
torch and transformers are imported by the tracer that needs them, not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from exporter.source import GENERATION, Source
from exporter.tracing.checkpoint_source import as_checkpoint
from exporter.tracing.companions import copy_companions
from exporter.tracing.names import name_axes, name_nodes, share_tied_weights
from exporter.tracing.parity import check_parity
from exporter.tracing.program import Program
from exporter.tracing.quiet import quiet_libraries
from exporter.write_model import write_model
from runtimes.artifact import Artifact
from runtimes.errors import MissingDependency, UnsupportedModel, UsageError
from runtimes.generation.cache_spec import CacheSpec
from runtimes.ort import describe_onnx
from runtimes.parity import ParityReport

MODEL_NAME = "model.onnx"

Tracer = Callable[[Source, int | None], Program]

# What torch 2.13 translates to and onnxscript 0.7 converts between. Outside, torch keeps opset 18 and only logs it.
OLDEST_OPSET, NEWEST_OPSET = 18, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A float32 ONNX model and what is known about it.

    Attributes:
        artifact: The file (and its weights, past 2 GB); inputs named as the model names them, dynamic axes
            ``batch`` and ``sequence``; of a decoder also ``past`` and ``total``.
        task: One of :data:`exporter.source.TASKS`, or ``custom``.
        tokenizer: The ``tokenizer.json`` beside it, if there is one.
        labels: Class names in the order of the logits; empty where the task has none.
        parity: A report for every case that was compared with PyTorch; empty for an ``.onnx`` source.
        max_length: The longest sequence the model takes; None where nothing limits it.
        findings: What is odd and not fatal, a sentence each.
        cache: What a decoder keeps of the tokens before; None for a model that keeps nothing.
    """

    artifact: Artifact
    task: str
    tokenizer: Path | None
    labels: tuple[str, ...]
    parity: tuple[ParityReport, ...]
    max_length: int | None
    findings: tuple[str, ...]
    cache: CacheSpec | None = None


def trace(source: Source, directory: Path, *, opset: int | None = None) -> Traced:
    """Write ``source`` as float32 ONNX into ``directory``, which exists, and compare it with PyTorch.

    Args:
        source: The model.
        directory: Where ``model.onnx``, the tokenizer and the configuration go.
        opset: The ONNX operator set; None takes the exporter's default.

    Raises:
        UsageError: the opset is not supported, or a factory is not what it must be.
        MissingDependency: PyTorch or transformers is not installed.
        UnsupportedModel: it cannot be loaded or traced, a weight holds NaN or infinity, or an operator has no ONNX.
        CorruptArtifact: external data of an ``.onnx`` file is missing or lies outside its folder.
        ParityFailure: the ONNX graph does not answer like the PyTorch model.
    """
    if opset is not None and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UsageError(
            f"opset {opset} is not supported", where="--opset", cure=f"use {OLDEST_OPSET} to {NEWEST_OPSET}"
        )
    with as_checkpoint(source, directory.parent) as checkpoint:
        return _trace(checkpoint, directory, opset)


def _trace(source: Source, directory: Path, opset: int | None) -> Traced:
    with quiet_libraries():
        tracer = _choose_tracer(source)
    # Once more: transformers sets its own log level while it is imported.
    with quiet_libraries():
        program = tracer(source, opset)
    if program.cache is None:
        name_axes(program.model)
    name_nodes(program.model)
    share_tied_weights(program.model)
    _require_opset(program.model, opset, source.reference)
    artifact = describe_onnx(write_model(program.model, directory / MODEL_NAME))
    parity = check_parity(program, artifact)
    with quiet_libraries():
        tokenizer, remarks = _copy_companions(source, artifact, directory)
    return Traced(
        artifact=artifact,
        task=program.task,
        tokenizer=tokenizer,
        labels=program.labels,
        parity=parity,
        max_length=program.max_length,
        findings=program.findings + remarks,
        cache=program.cache,
    )


def _choose_tracer(source: Source) -> Tracer:
    try:
        match source.kind:
            case "onnx":
                from exporter.tracing.onnx_source import read_onnx

                return read_onnx
            case "huggingface" if source.task == GENERATION:
                from exporter.tracing.decoder import trace_decoder

                return trace_decoder
            case "huggingface":
                from exporter.tracing.huggingface import trace_huggingface

                return trace_huggingface
            case "gguf":
                raise AssertionError("a GGUF file is unpacked before it is traced")
            case "factory":
                from exporter.tracing.module import trace_factory

                return trace_factory
            case "exported_program":
                from exporter.tracing.module import trace_exported_program

                return trace_exported_program
    except ImportError as error:
        raise MissingDependency(
            f"tracing needs a package that is not installed: {error.name}",
            where=source.reference,
            cure="pip install 'stepdown[onnxruntime]'",
        ) from error


def _require_opset(model: ir.Model, opset: int | None, reference: str) -> None:
    # torch logs a failed conversion and goes on; what was asked for and not given is an error here.
    if opset is not None and model.opset_imports.get("") != opset:
        raise UnsupportedModel(
            f"the model cannot be expressed in opset {opset}; the exporter stayed at {model.opset_imports.get('')}",
            where=reference,
            cure="leave --opset out",
        )


def _copy_companions(source: Source, artifact: Artifact, directory: Path) -> tuple[Path | None, tuple[str, ...]]:
    if source.kind == "huggingface":
        return copy_companions(source.path, directory)
    if source.kind != "onnx":
        return None, ()
    tokenizer, remarks = copy_companions(source.path.parent, directory)
    # A model that takes no texts lacks nothing without a tokenizer.
    takes_texts = any(spec.name == "input_ids" for spec in artifact.inputs)
    return tokenizer, remarks if takes_texts else ()
