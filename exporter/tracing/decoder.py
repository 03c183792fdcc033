"""A causal language model to one ONNX program that takes a prompt, and the tokens after it, with a cache.

In: a Source of kind ``huggingface`` and task ``text-generation``. Out: a Program whose inputs and outputs are named as
onnxruntime-genai names them (:mod:`runtimes.generation.cache_spec`). Imports torch and transformers.
"""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch.export import Dim
from transformers import DynamicCache

from compression.rounding.level_modules import spell_out
from exporter.source import GENERATION, Source
from exporter.tracing.failure import TRACE_FAILURES, explain_failure
from exporter.tracing.huggingface import find_max_length, load_model
from exporter.tracing.names import SCOPES, name_decoder_axes
from exporter.tracing.opset import choose_opset
from exporter.tracing.program import ParityCase, Program, Reference
from exporter.tracing.step_functions import attach_functions
from exporter.tracing.step_module import Step, one_node_each, refuse_attention
from exporter.tracing.weights import check_weights
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import IDS, LOGITS, MASK, POSITIONS, CacheSpec
from runtimes.generation.feeds import carry_cache, make_step
from runtimes.protocol import Tensors

# No axis is 1, none equals another or a sum of two others.
_BATCH, _NEW, _OLD = 2, 3, 7
_PREFIX = "model."
# (batch, new tokens, tokens in the cache, padding of each row): a prompt, one token, several, the same padded.
_CASES: tuple[tuple[int, int, int, tuple[int, ...]], ...] = (
    (1, 1, 0, ()),
    (1, 7, 0, ()),
    (1, 1, 1, ()),
    (1, 1, 17, ()),
    (2, 5, 17, ()),
    (3, 9, 0, (0, 8, 4)),
    (2, 1, 12, (5, 0)),
)
_LONG_PROMPT = 128


def trace_decoder(source: Source, opset: int | None) -> Program:
    """Load a language model, trace one step of it, and keep it as the reference.

    Raises:
        UnsupportedModel: it cannot be loaded, keeps another kind of cache, holds NaN or infinity, or cannot be traced.
    """
    model: Any = spell_out(load_model(source.path, GENERATION))
    findings = check_weights((name, tensor.detach().numpy()) for name, tensor in model.named_parameters())
    try:
        cache = read_cache(model, source.reference)
    except TRACE_FAILURES as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedModel(
            f"the PyTorch model itself does not run: {reason}", where=source.reference, cure="mend its config.json"
        ) from error
    example = _make_example(model, cache)
    try:
        with one_node_each(model), torch.no_grad():
            program = torch.onnx.export(
                Step(model).eval(),
                example,
                dynamo=True,
                verbose=False,
                opset_version=choose_opset(model, opset, source.reference),
                input_names=[IDS, MASK, POSITIONS, *(name for name, _ in cache.names())],
                output_names=[LOGITS, *(name for _, name in cache.names())],
                dynamic_shapes=_vary_axes(cache),
            )
    except TRACE_FAILURES as error:
        raise _explain(error, model, example, source.reference) from error
    assert program is not None  # torch gives none only where it writes a file
    graph = program.model
    _drop_prefix(graph)
    name_decoder_axes(graph, cache)
    attach_functions(graph)
    limit = find_max_length(model)
    return Program(
        model=graph,
        reference=_make_reference(model, cache),
        cases=_make_cases(model, cache, limit),
        task=GENERATION,
        max_length=limit,
        findings=findings,
        cache=cache,
    )


def read_cache(model: torch.nn.Module, where: str) -> CacheSpec:
    """Run two tokens, and return what the model keeps of them.

    Raises:
        UnsupportedModel: no keys and values, or of more than one shape.
    """
    caller: Any = model
    kept = DynamicCache()
    with torch.no_grad():
        caller(input_ids=torch.zeros(1, 2, dtype=torch.int64), past_key_values=kept, use_cache=True)
    shapes = {tuple(tensor.shape) for layer in kept.layers for tensor in (layer.keys, layer.values)}
    if len(shapes) != 1:
        found = f"shapes {sorted(shapes)}" if shapes else "nothing"
        raise UnsupportedModel(
            f"its layers keep {found} for two tokens; one shape of keys and values in all layers can be exported",
            where=where,
            cure="prune as many heads in every layer",
        )
    _, heads, _, width = shapes.pop()
    return CacheSpec(layers=len(kept.layers), kv_heads=heads, head_dim=width)


def _explain(error: BaseException, model: Any, example: tuple[Any, ...], where: str) -> UnsupportedModel:  # noqa: ANN401 - any class of transformers
    """Return why it cannot be traced: what attends by itself may fail for want of a mask, long before it is missed."""
    if model._supports_attention_backend:
        return explain_failure(error, model, example, {}, where)
    return refuse_attention(f"{type(model).__name__} attends in a way of its own, not", where)


def _make_example(model: torch.nn.Module, cache: CacheSpec) -> tuple[Any, ...]:
    feeds = _draw_step(model, cache, (_BATCH, _NEW, _OLD, ()), seed=0)
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    return tensors[IDS], tensors[MASK], tensors[POSITIONS], tuple(tensors[name] for name, _ in cache.names())


def _vary_axes(cache: CacheSpec) -> tuple[Any, ...]:
    tokens = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    return tokens, tokens, tokens, tuple({0: Dim.DYNAMIC, 2: Dim.DYNAMIC} for _ in cache.names())


def _draw_step(
    model: torch.nn.Module, cache: CacheSpec, case: tuple[int, int, int, tuple[int, ...]], seed: int
) -> dict[str, NDArray[Any]]:
    """Draw tokens and a cache; ``case`` is (batch, new tokens, tokens in the cache, padding before each row)."""
    batch, new, old, padding = case
    config: Any = model.config
    ids = np.random.default_rng(seed).integers(0, int(config.vocab_size), (batch, old + new), dtype=np.int64)
    mask = np.ones((batch, old + new), np.int64)
    for row, count in enumerate(padding):
        mask[row, :count] = 0
    past = cache.empty(batch)
    if old:
        # What the model itself would keep: numbers drawn at random are larger than any it meets, and so is rounding.
        before = _make_reference(model, cache)(make_step(ids[:, :old], mask[:, :old], past))
        past = carry_cache(cache, before)
    return make_step(ids[:, old:], mask, past)


def _drop_prefix(model: ir.Model) -> None:
    """Name weights and modules as the checkpoint does, without the module around it."""
    for value in list(model.graph.initializers.values()):
        if value.name is not None and value.name.startswith(_PREFIX):
            value.name = value.name.removeprefix(_PREFIX)
    for node in model.graph:
        scopes = node.metadata_props.get(SCOPES)
        if scopes is not None:
            names = ast.literal_eval(scopes)
            inside = [name.removeprefix(_PREFIX) for name in names if name != _PREFIX.rstrip(".")]
            node.metadata_props[SCOPES] = repr(inside)


def _make_cases(model: torch.nn.Module, cache: CacheSpec, limit: int | None) -> tuple[ParityCase, ...]:
    longest = min(limit or _LONG_PROMPT, _LONG_PROMPT)
    plan = [case for case in (*_CASES, (1, longest, 0, ())) if case[1] + case[2] <= longest]
    return tuple(
        ParityCase(
            name=f"{case[0]}x{case[1]} behind {case[2]}{' padded' if case[3] else ''}",
            feeds=_draw_step(model, cache, case, seed),
        )
        for seed, case in enumerate(plan, start=1)
    )


def _make_reference(model: torch.nn.Module, cache: CacheSpec) -> Reference:
    caller: Any = model

    def run(feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in feeds.items()}
        kept = DynamicCache()
        for layer in range(cache.layers):
            kept.update(*(tensors[f"past_key_values.{layer}.{kind}"] for kind in ("key", "value")), layer)
        with torch.no_grad():
            logits = caller(
                input_ids=tensors[IDS],
                attention_mask=tensors[MASK],
                position_ids=tensors[POSITIONS],
                past_key_values=kept,
                use_cache=True,
            ).logits
        found = {LOGITS: logits.numpy()}
        for layer, one in enumerate(kept.layers):
            found |= {f"present.{layer}.key": one.keys.numpy(), f"present.{layer}.value": one.values.numpy()}
        return found

    return run
