"""Calibration statistics of a model, without quantising it.

In: a model reference and data. Out: mergeable statistics of what enters each linear layer.
Must not import: torch, onnx-ir at module level.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration.statistics import CalibrationStatistics
    from exporter.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """What to collect from; ``shard`` is (part, parts), counted from 0. See ``stepdown calibrate --help``."""

    model: str
    data: str
    columns: tuple[str, ...] = ()
    samples: int = 256
    max_length: int = 128
    shard: tuple[int, int] = (0, 1)
    task: str | None = None
    opset: int | None = None


def collect_statistics(options: CollectOptions, progress: Progress) -> CalibrationStatistics:
    """Trace the model and collect the statistics of one shard of the data.

    Raises:
        UsageError, UnsupportedModel, DataError: as tracing and reading data do.
        UnsupportedModel: the model has no linear layer with constant weights.
    """
    from calibration.data import open_dataset
    from exporter.candidates.static_plans import collect_for_plans
    from exporter.source import open_source
    from exporter.tracing.trace import trace
    from runtimes.errors import UnsupportedModel

    source = open_source(options.model, task=options.task)
    with tempfile.TemporaryDirectory() as scratch:
        progress.step("tracing to ONNX")
        traced = trace(source, Path(scratch), opset=options.opset)
        dataset = open_dataset(
            options.data,
            traced.artifact.inputs,
            traced.tokenizer,
            columns=options.columns,
            max_length=min(options.max_length, traced.max_length or options.max_length),
            limit=options.samples,
        )
        with progress.task("calibrating", len(dataset)) as task:
            found = collect_for_plans(traced.artifact.path, dataset, shard=options.shard, advance=task.advance)
    if not found.tensors:
        raise UnsupportedModel(
            "no linear layer with constant weights", where=options.model, cure="there is nothing to calibrate"
        )
    return found
