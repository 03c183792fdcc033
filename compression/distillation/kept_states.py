"""What a teacher's head reads of every token, computed once and kept: a second epoch needs no teacher then.

In: samples, and what computes the states of a batch. Out: the states, rounded to float16 from the first time on, so
that every epoch learns from the same. Imports numpy and torch.

They lie in a file beside the state of the training: after a kill, what was computed need not be computed again, and is
not computed in another batch, whose sums might differ in their last bit. A million tokens of width 576 take 1.2 GB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from compression.samples import Batch, Samples
from runtimes.errors import OutputError

S = TypeVar("S", bound=np.generic)

_LARGEST = float(np.finfo(np.float16).max)


class KeptStates:
    """The states of all tokens of some samples, those that were computed so far."""

    def __init__(self, samples: Samples, width: int, folder: Path | None) -> None:
        """Open what a run before left in ``folder``, or make room for all; without a folder, in memory.

        Raises:
            OutputError: no room.
        """
        self._lengths = np.array([len(row["input_ids"]) for row in samples.rows], np.int64)
        self._starts = self._lengths.cumsum() - self._lengths
        shape = (int(self._lengths.sum()), width)
        self._states = _open(folder, f"states_{shape[0]}x{width}", shape, np.float16)
        self._known = _open(folder, f"known_{len(samples)}", (len(samples),), np.bool_)

    def read(self, batch: Batch, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return float32 [batch, sequence, width], 0 where there is padding; ``compute`` gives what is not known."""
        places = list(batch.indices)
        if not self._known[places].all():
            self._keep(places, compute())
        longest = batch.inputs["input_ids"].shape[1]
        read = np.zeros((len(places), longest, self._states.shape[1]), np.float32)
        for row, place in enumerate(places):
            read[row, : self._lengths[place]] = self._states[self._find(place)]
        return torch.from_numpy(read)

    def _keep(self, places: list[int], states: torch.Tensor) -> None:
        rounded = states.clamp(-_LARGEST, _LARGEST).to(torch.float16).numpy()
        for row, place in enumerate(places):
            if not self._known[place]:
                self._states[self._find(place)] = rounded[row, : self._lengths[place]]
                self._known[place] = True

    def _find(self, place: int) -> slice:
        return slice(int(self._starts[place]), int(self._starts[place] + self._lengths[place]))


def _open(folder: Path | None, name: str, shape: tuple[int, ...], dtype: type[S]) -> NDArray[S]:
    if folder is None:
        return np.zeros(shape, dtype)
    path = folder / name
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        with path.open("ab") as stream:
            # All at once: a page for which there is no room later would end the process.
            os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        raise OutputError(
            f"no room for {size / 1e9:.1f} GB of a teacher's states: {error.strerror}",
            where=str(path),
            cure="free some, or learn from less text",
        ) from error
    return np.memmap(path, dtype, mode="r+", shape=shape)
