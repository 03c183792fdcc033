"""One process at a time. Must not import anything outside the standard library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has ``folder`` locked, and keep them out while the block runs.

    The system lets go of the lock when the process ends, however it ends: nobody waits for a dead one.
    """
    import fcntl

    with (folder / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
