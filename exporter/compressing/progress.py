"""What a compression tells while it runs: the step, the training under way, its measures and the time left.

In: the entries of the metrics. Out: steps and tasks of a :class:`Progress`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from exporter.progress import Progress, Task

# What is not shown of an entry, or in another place.
_PLACES = {"step", "do", "training", "update", "updates", "epoch", "left_s", "held_out", "learning_rate"}


class Narrator:
    """Turns entries into a line a step and an epoch, and a bar a training."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open = ExitStack()
        self._task: Task | None = None
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def tell(self, entry: Mapping[str, object]) -> None:
        """Show an entry of the metrics."""
        shown: Mapping[str, Any] = entry
        if "steps" in shown:
            self._progress.step(f"step {shown['step'] + 1} of {shown['steps']}: {shown['do']}")
        elif "update" in shown:
            self._follow(shown)

    def _follow(self, entry: Mapping[str, Any]) -> None:
        if self._task is None:
            self._task = self._open.enter_context(self._progress.task(str(entry["training"]), entry["updates"]))
            self._done = 0
        measures = {name: value for name, value in entry.items() if name not in _PLACES}
        self._task.describe(_format(entry["training"], measures))
        self._task.advance(entry["update"] - self._done)
        self._done = entry["update"]
        if "held_out" in entry:
            self._progress.step(_format(f"epoch {entry['epoch']:.0f}", {**measures, **entry["held_out"]}))
        if entry["update"] == entry["updates"]:
            self._close()

    def _close(self) -> None:
        self._open.close()
        self._task = None


def _format(title: object, measures: Mapping[str, Any]) -> str:
    shown = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in measures.items()
    )
    return " · ".join((str(title), *shown))
