"""The largest magnitude of every float tensor of a model over a dataset: what decides whether FP16 holds it.

In: an ONNX file and a dataset. Out: a mapping by tensor name. Merging two is taking the larger, in any order. Padded
positions count: an infinity there turns into NaN elsewhere. What fills masks does not: lowering brings it into range.
Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.data import DEFAULT_BATCH_SIZE, Dataset
from calibration.observe import Observer

#: What is below means "never attend", whatever its size.
MASK_BELOW = -1e9


def list_floats(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the float32 values that nodes of the main graph compute."""
    return tuple(
        value.name for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT and value.name
    )


def collect_magnitudes(
    model: Path,
    dataset: Dataset,
    tensors: tuple[str, ...],
    *,
    threads: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return the largest magnitude of each tensor; infinity where one was infinite or NaN.

    Args:
        model: The float file.
        dataset: What to run it on.
        tensors: Names, as :func:`list_floats` gives them.
        threads: Of ONNX Runtime; None for one a core.
        batch_size: Samples a run.
        advance: Called with the number of samples after every batch.

    Raises:
        DataError: the data does not fit the model.
        UnsupportedModel: a tensor is not in the graph.
        CorruptArtifact: the model cannot be read.
    """
    observer = Observer(model, tensors, threads=threads)
    found: dict[str, float] = dict.fromkeys(tensors, 0.0)
    for feeds in dataset.batches(batch_size=batch_size):
        for name, array in observer.run(feeds).items():
            found[name] = max(found[name], _measure(array))
        advance(len(next(iter(feeds.values()))))
    return found


def _measure(array: NDArray[Any]) -> float:
    if np.isnan(array).any():
        return np.inf
    return float(np.abs(array[array > MASK_BELOW]).max(initial=0.0))


def merge_magnitudes(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the larger of both for each tensor of either."""
    return {name: max(first.get(name, 0.0), second.get(name, 0.0)) for name in (*first, *second)}
