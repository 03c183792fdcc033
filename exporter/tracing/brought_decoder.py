"""A decoder that another exporter wrote, as ours: its axes named, one graph for prompts and single tokens.

In: a graph with inputs ``past_key_values.N.key`` and outputs ``present.N.key``, as optimum-onnx writes it
(``model.onnx``, or ``decoder_model_merged.onnx`` with a branch for either use). Out: the graph edited, and what it
keeps. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.tracing.names import name_decoder_axes
from exporter.tracing.program import ParityCase, Reference
from runtimes.artifact import TensorSpec
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import BATCH, IDS, LOGITS, MASK, POSITIONS, TOTAL, CacheSpec, find_cache
from runtimes.generation.feeds import make_step
from runtimes.ort import OnnxRuntime, describe_onnx
from runtimes.protocol import Tensors

_SWITCH = "use_cache_branch"
# New tokens behind so many in the cache.
_CASES = ((7, 0), (1, 7), (1, 1))


def adopt_decoder(model: ir.Model, inputs: Sequence[TensorSpec], where: str) -> CacheSpec | None:
    """Edit ``model`` in place; return None where it keeps no cache and stays as it is.

    Of a merged graph the branch that reads a cache is kept, which an empty one makes that of prompts.

    Raises:
        UnsupportedModel: an input or an output of a decoder is missing, or it takes a single token at a time.
    """
    cache = find_cache(inputs)
    if cache is None:
        return None
    _take_branch(model)
    given = {value.name: value for value in model.graph.inputs}
    if POSITIONS not in given:
        for value in (value for node in model.graph for value in node.outputs if value.name == POSITIONS):
            value.name = f"{POSITIONS}_counted"
        # OPT counts its positions from the mask; what feeds a decoder feeds all the same inputs to each.
        model.graph.inputs.append(
            ir.Value(name=POSITIONS, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([None, None]))
        )
    outputs = {LOGITS, *(present for _, present in cache.names())}
    needed = {IDS, MASK, *(past for past, _ in cache.names())}
    missing = sorted((needed - given.keys()) | (outputs - {value.name for value in model.graph.outputs}))
    shape = given[IDS].shape if IDS in given else None
    if missing or (shape is not None and isinstance(shape[1], int)):
        what = f"the decoder lacks {missing[0]}" if missing else "the decoder takes a single token at a time"
        raise UnsupportedModel(
            what, where=where, cure="export it again with optimum-onnx, as text-generation-with-past"
        )
    _order_outputs(model, cache)
    name_decoder_axes(model, cache)
    return cache


def make_brought_cases(path: Path, model: ir.Model, cache: CacheSpec) -> tuple[Reference, tuple[ParityCase, ...]]:
    """Return the file as it was brought, each of its branches in its use, and what to compare it with us on."""
    width = model.graph.outputs[0].shape
    vocabulary = width[2] if width is not None and isinstance(width[2], int) else 2
    return _run_brought(path), tuple(_make_case(cache, int(vocabulary), new, old) for new, old in _CASES)


def _run_brought(path: Path) -> Reference:
    def run(feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        has_past = feeds[MASK].shape[1] > feeds[IDS].shape[1]
        with closing(OnnxRuntime().open(describe_onnx(path))) as session:
            # A merged file says that the mask is as long as the new tokens, as it is in its branch without a cache.
            session.inputs = tuple(
                replace(spec, shape=(BATCH, TOTAL)) if spec.name == MASK else spec for spec in session.inputs
            )
            told = {**feeds, _SWITCH: np.array([has_past])}
            return session.run({spec.name: told[spec.name] for spec in session.inputs})

    return run


def _make_case(cache: CacheSpec, vocabulary: int, new: int, old: int) -> ParityCase:
    generator = np.random.default_rng(old)
    shape = (2, cache.kv_heads, old, cache.head_dim)
    past = {name: generator.standard_normal(shape).astype(cache.dtype) for name, _ in cache.names()}
    ids = generator.integers(0, vocabulary, (2, new), dtype=np.int64)
    return ParityCase(name=f"2x{new} behind {old}", feeds=make_step(ids, np.ones((2, old + new), np.int64), past))


def _take_branch(model: ir.Model) -> None:
    """Put the branch that reads a cache in the place of each choice between it and the one without."""
    graph = model.graph
    switch = next((value for value in graph.inputs if value.name == _SWITCH), None)
    if switch is None:
        return
    for choice in [use.node for use in switch.uses() if use.node.op_type == "If"]:
        branch = choice.attributes["then_branch"].as_graph()
        made = list(branch.outputs)
        branch.outputs.clear()
        for value in list(branch.initializers.values()):
            branch.initializers.pop(str(value.name))
            graph.register_initializer(value)
        nodes = list(branch)
        branch.remove(nodes)
        graph.insert_before(choice, nodes)
        for old, new in zip(choice.outputs, made, strict=True):
            name, old.name = old.name, f"{old.name}_chosen"
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            new.name = name
        graph.remove(choice, safe=True)
    graph.inputs.remove(switch)


def _order_outputs(model: ir.Model, cache: CacheSpec) -> None:
    made = {value.name: value for value in model.graph.outputs}
    model.graph.outputs[:] = [made[name] for name in (LOGITS, *(present for _, present in cache.names()))]
