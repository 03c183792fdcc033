"""What the linears of a model are fed: the second moments of each input, gathered by streaming.

In: a float ONNX file, feeds, names of tensors. Out: :class:`InputStatistics`, one file a tensor. Must not import torch.

Padded positions are left out. In a causal model the inputs of a token are the same numbers whether it comes with its
prompt or after a cache, so those of prompts stand for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from calibration.collect import take_rows
from calibration.memory import map_large_blocks
from calibration.observe import Observer
from calibration.weights.blocks import FloatArray
from runtimes.errors import DataError, UnsupportedModel

Feeds = Mapping[str, NDArray[Any]]
ReadFeeds = Callable[[], Iterable[Feeds]]

_MASK = "attention_mask"
# Sums and handed-out tensors held at once: one pass for 135 million parameters and batches of 1,024 tokens.
_BUDGET_BYTES = 1 << 30
# Tokens kept of each input: 3 MB for 1,536 channels.
_KEPT_TOKENS, _KEPT_OF_BATCH = 512, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistic:
    """Of the rows x of a tensor, float32: the mean of ``x x^T`` [K, K], and of the magnitude of ``x`` [K].

    ``peak`` [K] is the largest magnitude, and ``tokens`` [at most 512, K] are some of the rows themselves.
    """

    gram: FloatArray
    absmean: FloatArray
    peak: FloatArray
    tokens: FloatArray

    @property
    def power(self) -> FloatArray:
        """The mean square of each input, [K]."""
        return np.diagonal(self.gram).copy()

    def divide(self, scales: FloatArray) -> Self:
        """Return the statistic of the inputs divided by ``scales`` [K]."""
        return type(self)(
            gram=self.gram / scales[:, None] / scales[None],
            absmean=self.absmean / scales,
            peak=self.peak / scales,
            tokens=self.tokens / scales,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """The statistics of many tensors, each in a file of its own: one is in memory at a time."""

    files: Mapping[str, Path]

    def load(self, tensor: str) -> InputStatistic:
        """Return the statistic of one tensor.

        Raises:
            DataError: it was not collected.
        """
        if tensor not in self.files:
            cure = "collect the inputs of every linear that is rounded"
            raise DataError("no statistics of this input", where=tensor, cure=cure)
        with np.load(self.files[tensor]) as arrays:
            return InputStatistic(**arrays)


def collect_inputs(
    model: Path,
    read: ReadFeeds,
    wanted: Sequence[str],
    directory: Path,
    *,
    budget_bytes: int = _BUDGET_BYTES,
    threads: int | None = None,
) -> InputStatistics:
    """Run the model over the feeds as often as it takes to gather ``wanted`` within ``budget_bytes``.

    Args:
        model: The float ONNX file.
        read: Gives the feeds, the same ones every time it is called.
        wanted: Names of float32 tensors [batch, sequence, K] in the graph.
        directory: Where the statistics are written.
        budget_bytes: How much sums and tensors of a batch may take; a single tensor may take more.
        threads: Threads of ONNX Runtime; None for one a core.

    Raises:
        DataError: there are no feeds, all is padding, or the feeds do not fit the model.
        UnsupportedModel: a tensor is missing, not float32, or holds NaN or Inf (named).
    """
    first = next(iter(read()), None)
    if first is None:
        raise DataError("there is nothing to run the model on", cure="give calibration data")
    left = list(dict.fromkeys(wanted))
    files: dict[str, Path] = {}
    with map_large_blocks():
        while left:
            observer = Observer(model, left, threads=threads)
            group = _fit_budget(observer, first, budget_bytes)
            if len(group) < len(observer.tensors):
                observer = Observer(model, group, threads=threads)
            for name, statistic in _gather(observer, read()).items():
                files[name] = directory / f"input_{len(files)}.npz"
                np.savez(files[name], **asdict(statistic))
            left = [name for name in left if name not in files]
    return InputStatistics(files=files)


def _fit_budget(observer: Observer, feeds: Feeds, budget_bytes: int) -> list[str]:
    """Return the first tensors of the graph that fit, at least one: their values in a batch, and sums.

    One sample tells how large they are: those of a batch, all at once, would be what the budget is to avoid.
    """
    batch = len(next(iter(feeds.values())))
    sample = {name: array[:1] for name, array in feeds.items()}
    chosen: list[str] = []
    taken = 0
    for name, array in observer.run(sample).tensors.items():
        taken += batch * array.nbytes + 4 * array.shape[-1] ** 2
        if chosen and taken > budget_bytes:
            break
        chosen.append(name)
    return chosen


def _gather(observer: Observer, feeds: Iterable[Feeds]) -> dict[str, InputStatistic]:
    sums: dict[str, _Sums] = {}
    for batch in feeds:
        for name, array in observer.run(batch).tensors.items():
            rows, _ = take_rows(name, array, -1, _take_mask(batch), 0)
            sums.setdefault(name, _Sums(rows.shape[1])).add(name, rows)
    return {name: found.finish(name) for name, found in sums.items()}


def _take_mask(feeds: Feeds) -> NDArray[Any] | None:
    """Return the mask of the tokens given, without those in the cache."""
    mask, ids = feeds.get(_MASK), feeds.get("input_ids")
    return mask if mask is None or ids is None else mask[:, mask.shape[1] - ids.shape[1] :]


class _Sums:
    """Running sums in float32: what a thousand batches lose, 1e-4 of each, is far below what GPTQ adds for damping."""

    def __init__(self, depth: int) -> None:
        self._gram = np.zeros((depth, depth), np.float32)
        self._magnitude, self._peak = np.zeros(depth, np.float32), np.zeros(depth, np.float32)
        self._kept: list[FloatArray] = []
        self._rows = 0

    def add(self, name: str, rows: FloatArray) -> None:
        gram = rows.T @ rows
        if not np.isfinite(gram).all():
            cure = "look for NaN or Inf in the weights before this tensor, or for an overflow"
            raise UnsupportedModel("NaN or Inf in the activations", where=name, cure=cure)
        self._gram += gram
        sizes = np.abs(rows)
        self._magnitude += sizes.sum(axis=0)
        np.maximum(self._peak, sizes.max(axis=0, initial=0), out=self._peak)
        self._rows += len(rows)
        if len(self._kept) * _KEPT_OF_BATCH < _KEPT_TOKENS:
            # The first too: no other token is as large in some channels (Sun et al., 2024, arXiv:2402.17762).
            self._kept.append(rows[:: max(1, -(-len(rows) // _KEPT_OF_BATCH))].copy())

    def finish(self, name: str) -> InputStatistic:
        if not self._rows:
            raise DataError("all positions are padding", where=name, cure="give texts with tokens")
        return InputStatistic(
            gram=self._gram / np.float32(self._rows),
            absmean=self._magnitude / np.float32(self._rows),
            peak=self._peak,
            tokens=np.concatenate(self._kept)[:_KEPT_TOKENS],
        )
