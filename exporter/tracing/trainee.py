"""A model that can be compressed: how to load it, again and again, and what it takes.

In: a Source. Out: a :class:`Trainee`. Imports torch and transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from compression.checkpoint import load_compressed
from compression.models.turned_linear import turn_conv1d
from compression.rounding.level_modules import spell_out
from exporter.source import GENERATION, Source
from exporter.tracing.companions import CONFIG
from exporter.tracing.huggingface import FreshHead, find_max_length, list_labels, load_model, name_inputs
from exporter.tracing.module import Examples, call_factory, vary_axes, widen_examples
from exporter.tracing.quiet import quiet_libraries
from runtimes.artifact import TensorSpec
from runtimes.atomic import write_text
from runtimes.errors import UnsupportedModel

#: A factory's model, compressed: what ``stepdown export`` takes.
PROGRAM_NAME = "model.pt2"

Load = Callable[[Path | None], torch.nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """A model to compress.

    Attributes:
        load: Loads a checkpoint of it; None is the model as the user gave it.
        inputs: What it takes; token inputs are int64 [batch, sequence].
        labels: Class names in the order of the logits; empty where it gives a score, or none.
        max_length: The longest sequence it takes; None where nothing limits it.
        end: The id behind a text, of a language model that has one.
        finish: Writes into the folder of the finished checkpoint what export needs besides it.
    """

    load: Load
    inputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    max_length: int | None
    end: int | None
    finish: Callable[[Path], None]


def open_trainee(source: Source, head: FreshHead | None) -> Trainee:
    """Find out how ``source`` is loaded, and load it once to see what it takes.

    Raises:
        UnsupportedModel: it cannot be loaded, or is a graph and no longer a module.
        UsageError: the factory is not what it must be.
    """
    if source.kind == "huggingface" and source.task is not None:
        return _open_huggingface(source.path, source.task, head)
    if source.kind == "factory":
        return _open_factory(source)
    raise UnsupportedModel(
        "a traced graph has no modules to compress",
        where=source.reference,
        cure="give the Hugging Face directory or the file.py:factory that it was made from",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A model that others learn from: ``load`` gives the same one every time, and its parameters do not learn."""

    load: Callable[[], torch.nn.Module]
    inputs: tuple[TensorSpec, ...]
    tokenizer: Path


def make_teacher(trainee: Trainee, tokenizer: Path) -> Teacher:
    """Return a teacher of a model as the user gave it; ``tokenizer`` is its ``tokenizer.json``, where it has one."""

    @cache
    def load() -> torch.nn.Module:
        return trainee.load(None).requires_grad_(False)

    return Teacher(load=load, inputs=trainee.inputs, tokenizer=tokenizer)


def limit_threads(count: int | None) -> None:
    """Let torch compute with ``count`` threads; None leaves it as it is."""
    if count is not None:
        torch.set_num_threads(count)


def _open_huggingface(directory: Path, task: str, head: FreshHead | None) -> Trainee:
    def load(checkpoint: Path | None) -> torch.nn.Module:
        with quiet_libraries():
            return turn_conv1d(
                load_model(directory, task, head) if checkpoint is None else load_model(checkpoint, task)
            )

    model = load(None)
    scores = getattr(model.config, "problem_type", None) == "regression" or getattr(model.config, "num_labels", 0) == 1
    return Trainee(
        load=load,
        inputs=tuple(TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in name_inputs(model)),
        labels=list_labels(model) if task == "text-classification" and not scores else (),
        max_length=find_max_length(model),
        end=_find_end(model) if task == GENERATION else None,
        finish=_restore_cache if task == GENERATION else lambda _folder: None,
    )


def _find_end(model: torch.nn.Module) -> int | None:
    config: Any = model.config
    ends = config.eos_token_id
    return int(ends[0]) if isinstance(ends, list) else ends


def _restore_cache(folder: Path) -> None:
    """Let the checkpoint of a language model say again that it keeps a cache, which training does without."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    write_text(path, json.dumps({**config, "use_cache": True}, indent=2) + "\n")


def _open_factory(source: Source) -> Trainee:
    def load(checkpoint: Path | None) -> torch.nn.Module:
        module = _call_seeded(source)[0]
        return (module if checkpoint is None else load_compressed(module, checkpoint)).eval()

    examples = _call_seeded(source)[1]
    return Trainee(
        load=load,
        inputs=tuple(_describe_input(name, tensor) for name, tensor in examples.items()),
        labels=(),
        max_length=None,
        end=None,
        finish=partial(_write_program, load, examples),
    )


def _call_seeded(source: Source) -> tuple[torch.nn.Module, Examples]:
    # A factory that draws its weights would draw others each time.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return call_factory(source)


def _describe_input(name: str, tensor: torch.Tensor) -> TensorSpec:
    axes = vary_axes(tensor)
    shape = tuple(axes.get(axis, size) for axis, size in enumerate(tensor.shape))
    return TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=shape)


def _write_program(load: Load, examples: Examples, folder: Path) -> None:
    """Write what export reads of a factory's model: its checkpoint alone does not say what module it is of."""
    wide = widen_examples(examples)
    dynamic = {name: dict.fromkeys(vary_axes(tensor), Dim.DYNAMIC) for name, tensor in wide.items()}
    with quiet_libraries():
        program = torch.export.export(spell_out(load(folder)), (), dict(wide), dynamic_shapes=dynamic)
        torch.export.save(program, folder / PROGRAM_NAME)
