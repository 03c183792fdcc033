"""One process at a time. Must not import anything outside the standard library but ``runtimes.errors``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.errors import OutputError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has ``folder`` locked, and keep them out while the block runs.

    The system lets go of the lock when the process ends, however it ends: nobody waits for a dead one.

    Raises:
        OutputError: a link lies where the lock should, which is not followed.
    """
    import fcntl

    handle = _open(folder / ".lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Open the lock without a change to what is there: who may write the folder could have put a link to anything."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OutputError("the lock is a link", where=str(path), cure="see who put it there, and remove it") from error
