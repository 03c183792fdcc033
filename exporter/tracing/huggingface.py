"""A Hugging Face directory to an ONNX program, through optimum's ``TasksManager`` and transformers' exporter.

In: a Source of kind ``huggingface``. Out: a Program. Imports torch, transformers and optimum.

Attention is traced in its eager form: for BERT the graph has 197 nodes against 287 of the SDPA form, which masks and
renormalises every layer apart, and both agree with PyTorch on padded rows, empty ones included.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optimum.exporters.tasks import TasksManager
from torch.export import Dim
from transformers import AutoConfig
from transformers.exporters import OnnxConfig, OnnxExporter

from compression.checkpoint import STRUCTURE_NAME, load_compressed
from compression.rounding.level_modules import spell_out
from exporter.source import Source
from exporter.tracing.failure import TRACE_FAILURES, explain_failure
from exporter.tracing.opset import choose_opset
from exporter.tracing.padding import broadcast_padding_masks
from exporter.tracing.program import ParityCase, Program, Reference
from exporter.tracing.weights import check_weights
from runtimes.errors import UnsupportedModel
from runtimes.protocol import Tensors
from runtimes.torch_rt import name_outputs

# Two of each so that no axis is taken for the constant 1; 9 is no power of two nor a multiple of a head size.
_EXAMPLE_SHAPE = (2, 9)
# Attention grows with the square of the length; 512 is where most encoders end.
_LONGEST_CASE = 512
_LABELLED = {"text-classification", "token-classification"}


def trace_huggingface(source: Source, opset: int | None) -> Program:
    """Load the model for its task, trace it with dynamic batch and sequence, and keep it as the reference.

    Raises:
        UnsupportedModel: it cannot be loaded, lacks the task's weights, holds NaN or infinity, or cannot be traced.
    """
    if source.task is None:
        raise UnsupportedModel("the task is not known", where=source.reference, cure="name one with --task")
    model = spell_out(load_model(source.path, source.task))
    findings = check_weights((name, tensor.detach().numpy()) for name, tensor in model.named_parameters())
    inputs = name_inputs(model)
    limit = find_max_length(model)
    shape = (_EXAMPLE_SHAPE[0], min(_EXAMPLE_SHAPE[1], limit or _EXAMPLE_SHAPE[1]))
    example = {name: torch.from_numpy(array) for name, array in _make_feeds(model, inputs, shape, 0).items()}
    config = OnnxConfig(
        dynamic_shapes={name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in inputs},
        opset_version=choose_opset(model, opset, source.reference),
    )
    try:
        with broadcast_padding_masks():
            graph = OnnxExporter().export(model, dict(example), config=config).program
    except TRACE_FAILURES as error:
        raise explain_failure(error, model, (), example, source.reference) from error
    outputs = [value.name for value in graph.graph.outputs]
    return Program(
        model=graph,
        reference=_make_reference(model, outputs),
        cases=_make_cases(model, inputs, limit),
        task=source.task,
        labels=list_labels(model) if source.task in _LABELLED else (),
        max_length=limit,
        findings=findings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshHead:
    """A classifier that is yet to be trained: its classes, or none for a score; ``seed`` draws its first weights."""

    labels: tuple[str, ...]
    seed: int


def load_model(directory: Path, task: str, head: FreshHead | None = None) -> torch.nn.Module:
    """Load a checkpoint in float32, in evaluation mode, with eager attention and every weight of its task.

    Args:
        directory: Config and weights, compressed or not.
        task: One of :data:`exporter.source.TASKS`.
        head: Makes the head of ``text-classification`` anew, on an encoder that has none.

    Raises:
        UnsupportedModel: the architecture is not known, has no such task, or the checkpoint lacks weights of it.
    """
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        auto_class = TasksManager.get_model_class_for_task(
            task, framework="pt", model_type=config.model_type, library="transformers"
        )
        config._attn_implementation = "eager"
        if (directory / STRUCTURE_NAME).is_file():
            return _configure(load_compressed(auto_class.from_config(config).float(), directory))
        if head is not None:
            _set_labels(config, head.labels)
        return _configure(_load_checked(auto_class, directory, config, task, head))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnsupportedModel(
            f"transformers cannot load it for {task}: {reason}",
            where=str(directory),
            cure="check the directory and --task; models that bring their own code are not run",
        ) from error


def _load_checked(
    auto_class: Any,  # noqa: ANN401 - the classes of transformers are untyped
    directory: Path,
    config: Any,  # noqa: ANN401
    task: str,
    head: FreshHead | None,
) -> torch.nn.Module:
    options = {"config": config, "dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if head is None else head.seed)
        model, info = auto_class.from_pretrained(directory, **options)
    missing = sorted(info["missing_keys"])
    if head is not None:
        # A pooler belongs to the head: where the checkpoint has none, it is trained with it.
        missing = [
            name for name in missing if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name
        ]
    elif missing and all("pooler" in name.split(".") for name in missing):
        # A masked LM's checkpoint has no pooler: leave out what would be random rather than ship it.
        model, info = auto_class.from_pretrained(directory, **options, add_pooling_layer=False)
        missing = sorted(info["missing_keys"])
    wrong = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    if missing or wrong:
        raise UnsupportedModel(
            f"the checkpoint has no weights for {task}: {', '.join((missing + wrong)[:4])} would be random",
            where=str(directory),
            cure="name with --task what the model was trained for, or train the head first",
        )
    return model


def _set_labels(config: Any, labels: tuple[str, ...]) -> None:  # noqa: ANN401
    names = labels or ("score",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: place for place, name in enumerate(names)}
    config.problem_type = "single_label_classification" if labels else "regression"


def _configure(model: torch.nn.Module) -> torch.nn.Module:
    config: Any = model.config
    config.return_dict = True
    for flag in ("output_hidden_states", "output_attentions", "use_cache"):
        if hasattr(config, flag):
            setattr(config, flag, False)
    return model.eval()


def name_inputs(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the token inputs that a model's graph takes, in order.

    Raises:
        UnsupportedModel: it takes no tokens, or is an encoder with a decoder.
    """
    taken = inspect.signature(model.forward).parameters
    if "input_ids" not in taken or not hasattr(model.config, "vocab_size"):
        raise UnsupportedModel(
            f"{type(model).__name__} does not take tokens",
            where=f"{type(model).__name__}.forward",
            cure="write a file.py:factory that returns it with example inputs",
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModel(
            f"{type(model).__name__} is an encoder with a decoder, which is not one graph",
            where=f"{type(model).__name__}.forward",
            cure="save its encoder alone, or write a file.py:factory that returns it",
        )
    names = ["input_ids"] + (["attention_mask"] if "attention_mask" in taken else [])
    # One token type means that the tokenizer makes none (RoBERTa); zero, that the embedding is not there (DeBERTa).
    if "token_type_ids" in taken and getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)


def find_max_length(model: torch.nn.Module) -> int | None:
    """Return the longest sequence a model takes; None where nothing limits it."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count positions from behind the padding index.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def list_labels(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the class names of a model in the order of its logits."""
    config: Any = model.config
    names = dict(config.id2label or {})
    return tuple(str(names[index]) for index in sorted(names))


def _make_feeds(
    model: torch.nn.Module, inputs: tuple[str, ...], shape: tuple[int, int], seed: int, kept: tuple[int, ...] = ()
) -> dict[str, NDArray[np.int64]]:
    """Draw token ids; row ``i`` keeps ``kept[i]`` tokens and the rest is padding, rows beyond ``kept`` keep all."""
    generator = np.random.default_rng(seed)
    config: Any = model.config
    vocabulary, padding = int(config.vocab_size), int(config.pad_token_id or 0)
    ids = generator.integers(0, vocabulary, shape, dtype=np.int64)
    ids[ids == padding] = (padding + 1) % vocabulary
    mask = np.ones(shape, np.int64)
    for row, count in enumerate(kept):
        mask[row, count:] = 0
    ids[mask == 0] = padding
    types = generator.integers(0, 2, shape, dtype=np.int64) * mask
    made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: made[name] for name in inputs}


def _make_cases(model: torch.nn.Module, inputs: tuple[str, ...], limit: int | None) -> tuple[ParityCase, ...]:
    longest = min(limit or 128, _LONGEST_CASE)
    plan: list[tuple[tuple[int, int], tuple[int, ...], str]] = [
        ((1, 1), (), ""),
        ((1, 7), (), ""),
        ((2, 8), (5,), " padded"),
        ((3, 11), (11, 1, 4), " padded"),
        ((8, 16), (), ""),
        ((1, longest), (), ""),
    ]
    if "attention_mask" in inputs:
        plan.append(((2, 6), (6, 0), " one row empty"))
    fitting = [row for row in plan if row[0][1] <= (limit or longest)]
    return tuple(
        ParityCase(name=f"{shape[0]}x{shape[1]}{note}", feeds=_make_feeds(model, inputs, shape, seed, kept))
        for seed, (shape, kept, note) in enumerate(fitting, start=1)
    )


def _make_reference(model: torch.nn.Module, outputs: list[str]) -> Reference:
    def run(feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        with torch.no_grad():
            result = model(**{name: torch.from_numpy(np.asarray(array)) for name, array in feeds.items()})
        return {name: tensor.numpy() for name, tensor in name_outputs(result, outputs).items()}

    return run
