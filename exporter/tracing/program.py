"""What the tracers hand to the common stage: an ONNX graph in memory and the PyTorch model it must agree with.

Plain data. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from runtimes.generation.cache_spec import CacheSpec
from runtimes.protocol import Tensors

CUSTOM_TASK = "custom"

Reference = Callable[[Tensors], dict[str, NDArray[np.generic]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityCase:
    """One set of inputs to compare on; ``name`` says its shape and what is special (``2x8 padded``)."""

    name: str
    feeds: Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A traced model before it is written.

    Attributes:
        model: The graph, weights included, dynamic axes named.
        reference: Runs the original on numpy feeds and returns its outputs by the graph's names; None where the
            source was ONNX already and there is nothing to agree with.
        cases: The inputs to compare on.
        task: One of :data:`exporter.source.TASKS`, or ``custom``.
        labels: Class names in the order of the logits; empty where the task has none.
        max_length: The longest sequence the model takes; None where nothing limits it or there is no sequence.
        findings: What is odd about the model and not fatal, a sentence each.
        cache: What a decoder keeps of the tokens before; None for a model that keeps nothing.
    """

    model: ir.Model
    reference: Reference | None
    cases: tuple[ParityCase, ...]
    task: str
    labels: tuple[str, ...] = ()
    max_length: int | None = None
    findings: tuple[str, ...] = ()
    cache: CacheSpec | None = None
