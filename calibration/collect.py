"""Runs the float model over a dataset and gathers statistics, in memory that does not grow with the samples.

In: an ONNX file, a :class:`~calibration.data.Dataset`, tensor names. Out:
:class:`~calibration.statistics.CalibrationStatistics`. Padded positions are left out: rows of a
``[batch, sequence, ...]`` tensor count only where the attention mask is not zero. Must not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.data import DEFAULT_BATCH_SIZE, Dataset, Shard
from calibration.linears import Linear, find_linears
from calibration.magnitudes import merge_magnitudes
from calibration.memory import map_large_blocks
from calibration.observe import Observer
from calibration.sources import count_samples
from calibration.statistics import CalibrationStatistics
from calibration.tensor_statistics import SAMPLE_ROWS, TensorStatistics
from runtimes.artifact import hash_files
from runtimes.errors import DataError, UnsupportedModel
from runtimes.ort import describe_onnx_files

__all__ = ["Linear", "collect", "find_linears"]

_MASK = "attention_mask"


def collect(
    model: Path,
    dataset: Dataset,
    tensors: Sequence[str],
    *,
    measured: Sequence[str] = (),
    shard: Shard = (0, 1),
    advance: Callable[[int], None] = lambda _: None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    threads: int | None = None,
) -> CalibrationStatistics:
    """Gather the statistics of ``tensors`` over one shard of ``dataset``.

    Args:
        model: The float ONNX file.
        dataset: What to run it on.
        tensors: Names of float32 values in the graph.
        measured: Names of float32 values of which only the largest magnitude is kept.
        shard: (i, n): this run takes the batches with number % n == i.
        advance: Called with the number of samples after every batch.
        batch_size: Samples a run.
        threads: Threads of ONNX Runtime; None for one a core.

    Raises:
        DataError: the data does not fit the model, or the shard has no batch.
        UnsupportedModel: a tensor is missing, not float32, changes its channel count, or holds NaN or Inf (named).
        CorruptArtifact: the model cannot be read.
    """
    observer = Observer(model, tensors, measured=measured, threads=threads)
    found: dict[str, TensorStatistics] = {}
    magnitudes: dict[str, float] = {}
    samples = 0
    with map_large_blocks(), ThreadPoolExecutor(max_workers=2) as pool:
        for number, feeds in dataset.numbered_batches(batch_size=batch_size, shard=shard):
            mask = feeds.get(_MASK)

            def update(
                item: tuple[str, NDArray[Any]], number: int = number, mask: NDArray[Any] | None = mask
            ) -> tuple[str, TensorStatistics]:
                name, array = item
                rows, identities = take_rows(name, array, observer.channel_axis[name], mask, number)
                before = found.get(name) or TensorStatistics.empty(rows.shape[1], SAMPLE_ROWS)
                return name, _update(name, before, rows, identities)

            observed = observer.run(feeds)
            found.update(pool.map(update, observed.tensors.items()))
            magnitudes = merge_magnitudes(magnitudes, observed.magnitudes)
            count = count_samples(feeds)
            samples += count
            advance(count)
    if not samples:
        raise DataError(f"shard {shard[0]}/{shard[1]} has no batch", cure="use fewer shards, or give more samples")
    return CalibrationStatistics(
        model_sha256=hash_files(describe_onnx_files(model)),
        dataset_sha256=hashlib.sha256(f"{dataset.identity()}:{batch_size}".encode()).hexdigest(),
        shard_count=shard[1],
        shards=(shard[0],),
        samples=samples,
        tensors={name: found[name] for name in observer.tensors},
        magnitudes=magnitudes,
    )


def _update(
    name: str, before: TensorStatistics, rows: NDArray[np.float32], identities: NDArray[np.uint64]
) -> TensorStatistics:
    if rows.shape[1] != len(before.minimum):
        what = f"the channel axis of {name!r} changes from {len(before.minimum)} to {rows.shape[1]}"
        raise UnsupportedModel(what, where=name, cure="leave this tensor in float")
    try:
        return before.update(rows, identities)
    except ValueError as error:
        cure = "look for NaN or Inf in the weights before this tensor, or for an overflow; it is the first one affected"
        raise UnsupportedModel(f"{error} in the activations", where=name, cure=cure) from error


def take_rows(
    name: str, array: NDArray[Any], channel_axis: int, mask: NDArray[Any] | None, batch: int
) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Return (rows ``[rows, channels]``, their identities), without the padded positions.

    A row is padded where its leading axes are the mask's ``[batch, sequence]``, or those two in one, and the mask is
    zero there. A row's identity is its batch and its place in it, so tensors of one layout are sampled at the same
    tokens.

    Raises:
        UnsupportedModel: the tensor is not float32, or has no channel axis.
    """
    if array.dtype != np.float32 or array.ndim == 0:
        cure = "calibrate float32 tensors"
        raise UnsupportedModel(f"a {array.dtype} tensor of rank {array.ndim}", where=name, cure=cure)
    last = np.moveaxis(array, channel_axis, -1)
    rows = np.ascontiguousarray(last).reshape(-1, last.shape[-1])
    places = np.arange(len(rows), dtype=np.uint64)
    if mask is not None and not mask.all():
        if last.shape[:-1] == mask.shape or last.shape[:-1] == (mask.size,):
            kept = mask.reshape(-1) != 0
            rows, places = rows[kept], places[kept]
        elif last.shape[:2] == mask.shape:
            kept = np.repeat(mask.reshape(-1) != 0, len(rows) // mask.size)
            rows, places = rows[kept], places[kept]
    return rows, (np.uint64(batch) << np.uint64(32)) | places
