"""One process at a time. Must not import anything outside the standard library but ``runtimes.errors``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.errors import OutputError

LOCK = ".lock"
_IN_THE_WAY = {errno.ELOOP: "a link", errno.EISDIR: "a folder"}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has ``folder`` locked, and keep them out while the block runs.

    The system lets go of the lock when the process ends, however it ends: nobody waits for a dead one.

    Raises:
        OutputError: a link lies where the lock should, which is not followed, or a folder.
    """
    import fcntl

    path, is_held = folder / LOCK, False
    while not is_held:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Who held it may have removed it: whoever comes next waits for another one.
            is_held = is_still(handle, path)
            if is_held:
                yield
        finally:
            os.close(handle)


def is_still(handle: int, path: Path) -> bool:
    """Whether what was opened still lies under its name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    """Open the lock without a change to what is there: who may write the folder could have put a link to anything."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        what = f"the lock is {_IN_THE_WAY[error.errno]}"
        raise OutputError(what, where=str(path), cure="see who put it there, and remove it") from error
