"""Progress of long work: steps and counted tasks.

In: titles and counts. Out: lines and bars on a terminal, or nothing.
Must not import: rich at module level (a device has none, and ``stepdown --help`` must not pay for it).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID


class Task(Protocol):
    """Counted work under way."""

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more items are done."""
        ...

    def describe(self, title: str) -> None:
        """Say anew what the work is, with what is known of it by now."""
        ...


class Progress(Protocol):
    """Where long work tells what it is doing."""

    def step(self, title: str) -> None:
        """Say that a new step begins."""
        ...

    def task(self, title: str, total: int | None) -> AbstractContextManager[Task]:
        """Count work: ``total`` items, None where it is not known beforehand."""
        ...


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        """Say nothing."""

    def describe(self, title: str) -> None:
        """Say nothing."""


class SilentProgress:
    """Says nothing: for pipes, files and tests."""

    def step(self, title: str) -> None:
        """Say nothing."""

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Task]:  # noqa: ARG002 (the protocol's signature)
        """Say nothing."""
        yield _SilentTask()


class RichProgress:
    """Steps as lines, tasks as bars with items a second and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def step(self, title: str) -> None:
        """Print the title."""
        self._console.print("•", title, markup=False, highlight=False)

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Task]:
        """Draw a bar that disappears when the block ends, whatever ends it."""
        from rich import progress

        columns = (
            progress.TextColumn("  {task.description}"),
            progress.BarColumn(bar_width=32),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console, transient=True) as bars:
            yield _RichTask(bars, bars.add_task(title, total=total, rate=""))


class _RichTask:
    def __init__(self, bars: RichBars, identity: TaskID) -> None:
        self._bars, self._identity = bars, identity

    def advance(self, count: int = 1) -> None:
        """Move the bar and bring its rate up to date."""
        self._bars.advance(self._identity, count)
        speed = self._bars.tasks[self._bars.task_ids.index(self._identity)].speed
        self._bars.update(self._identity, rate=f"{speed:.1f}/s" if speed else "")

    def describe(self, title: str) -> None:
        """Change what stands before the bar."""
        self._bars.update(self._identity, description=title)


def make_progress(stream: TextIO) -> Progress:
    """Return the rich form where ``stream`` is a terminal and rich is installed, else the silent one."""
    if not stream.isatty():
        return SilentProgress()
    try:
        from rich.console import Console
    except ModuleNotFoundError:  # a device installs no rich
        return SilentProgress()
    return RichProgress(Console(file=stream))
