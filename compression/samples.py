"""What a step is given to learn and to measure on: tokenised samples in, padded batches of tensors out.

Deterministic: the batches of an epoch depend on the samples, the batch size, the seed and the epoch alone.
Imports numpy and torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

#: One sample: a vector an input (``input_ids``, ``attention_mask``, ...), or an array of any fixed shape.
Row = Mapping[str, NDArray[np.generic]]

# Samples are shuffled, then sorted by length inside windows of so many batches: little padding, and still random.
_WINDOW_BATCHES = 32
# Of batches to look at a model with, where nothing learns.
_LOOK_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Samples in memory, without padding.

    Attributes:
        rows: One mapping a sample, all with the same names.
        labels: int64 classes [samples], float32 scores [samples], or None.
        padding: What fills an input up to the longest of its batch; 0 where it is not named.
        teacher_rows: The same samples as the teacher's tokenizer cuts them, where it is another than the model's.
        teacher_padding: As ``padding``, for ``teacher_rows``.
        teacher_ids: The teacher's id of each of the model's, int64 [ids], where it has others for the same pieces.
    """

    rows: tuple[Row, ...]
    labels: NDArray[np.int64] | NDArray[np.float32] | None = None
    padding: Mapping[str, int] = field(default_factory=dict)
    teacher_rows: tuple[Row, ...] | None = None
    teacher_padding: Mapping[str, int] = field(default_factory=dict)
    teacher_ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, indices: Sequence[int]) -> Samples:
        """Return the samples at ``indices``, in that order."""
        return replace(
            self,
            rows=tuple(self.rows[index] for index in indices),
            labels=None if self.labels is None else self.labels[np.asarray(indices, np.int64)],
            teacher_rows=None if self.teacher_rows is None else tuple(self.teacher_rows[index] for index in indices),
        )

    def collate(self, indices: Sequence[int]) -> Batch:
        """Return the samples at ``indices`` as one batch, padded at the end to its longest."""
        inputs = _stack([self.rows[index] for index in indices], self.padding)
        return Batch(
            inputs=inputs,
            labels=None if self.labels is None else torch.from_numpy(self.labels[np.asarray(indices, np.int64)]),
            indices=tuple(indices),
            teacher_inputs=self._collate_teacher(indices, inputs),
        )

    def _collate_teacher(self, indices: Sequence[int], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.teacher_rows is not None:
            return _stack([self.teacher_rows[index] for index in indices], self.teacher_padding)
        if self.teacher_ids is not None:
            return {**inputs, "input_ids": torch.from_numpy(self.teacher_ids)[inputs["input_ids"]]}
        return inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some samples as tensors.

    Attributes:
        inputs: What the model takes by name, [batch, sequence] each, integers as int64.
        labels: [batch], int64 or float32, or None.
        indices: The places of the samples in their :class:`Samples`.
        teacher_inputs: What the teacher takes; the same object as ``inputs`` where both read the same tokens.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor | None
    indices: tuple[int, ...]
    teacher_inputs: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSets:
    """What the user gave: samples to learn from, to measure on, and without labels; None where there are none."""

    train: Samples | None = None
    held_out: Samples | None = None
    unlabelled: Samples | None = None


def plan_batches(samples: Samples, batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return which samples each batch of an epoch holds: shuffled, batches of about one length."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(samples))
    lengths = np.array([_measure(row) for row in samples.rows])
    window = _WINDOW_BATCHES * batch_size
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[lengths[part].argsort(kind="stable")]
        batches += [tuple(part[i : i + batch_size].tolist()) for i in range(0, len(part), batch_size)]
    return [batches[place] for place in generator.permutation(len(batches))]


def read_batches(samples: Samples, batch_size: int) -> Iterator[Batch]:
    """Yield every sample once, the shortest first, unshuffled: for measuring."""
    order = np.array([_measure(row) for row in samples.rows]).argsort(kind="stable").tolist()
    return (samples.collate(order[start : start + batch_size]) for start in range(0, len(order), batch_size))


def _measure(row: Row) -> int:
    return len(next(iter(row.values())))


def _stack(rows: Sequence[Row], padding: Mapping[str, int]) -> dict[str, torch.Tensor]:
    stacked = {}
    for name, first in rows[0].items():
        arrays = [row[name] for row in rows]
        longest = max(len(array) for array in arrays)
        dtype = np.int64 if first.dtype.kind in "iu" else first.dtype
        filled = np.full((len(rows), longest, *first.shape[1:]), padding.get(name, 0), dtype)
        for place, array in enumerate(arrays):
            filled[place, : len(array)] = array
        stacked[name] = torch.from_numpy(filled)
    return stacked


def draw_samples(samples: Samples, count: int, generator: torch.Generator) -> Samples:
    """Return ``count`` of the samples, drawn without replacement; all where there are no more."""
    if count >= len(samples):
        return samples
    return samples.subset(sorted(torch.randperm(len(samples), generator=generator)[:count].tolist()))


def draw_batches(samples: Samples, count: int, generator: torch.Generator) -> list[Batch]:
    """Return batches of ``count`` samples, those of one length together."""
    return list(read_batches(draw_samples(samples, count, generator), _LOOK_BATCH))
