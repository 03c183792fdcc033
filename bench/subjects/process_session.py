"""A subject in a process of its own as a session, for what needs its answers and not its speed.

In: a :class:`~bench.subjects.process.SubjectProcess`. Out: a :class:`~runtimes.protocol.Session`. Must not import a
runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.subjects.process import SubjectProcess
from runtimes.protocol import Tensors


class ProcessSession:
    """Passes feeds and outputs through files of a folder, which is given; whoever made the process ends it."""

    thread_safe = False

    def __init__(self, process: SubjectProcess, folder: Path) -> None:
        opened = process.open()
        self.inputs, self.outputs = opened.inputs, opened.outputs
        self._process = process
        self._feeds, self._answer = folder / "feeds.npz", folder / "answer.npz"

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once and return every output by name.

        Raises:
            DataError: an input is missing, of another dtype or shape, or its values are refused by the model.
            SubjectFailed: the process crashed or did not answer in time.
        """
        given: dict[str, Any] = dict(feeds)
        np.savez(self._feeds, **given)
        self._process.prepare(self._feeds)
        self._process.answer(self._answer)
        with np.load(self._answer, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Return a call that runs on these feeds, files included: not one to be timed."""
        return partial(self.run, feeds)

    def close(self) -> None:
        """Do nothing: the process is ended by whoever made it."""
