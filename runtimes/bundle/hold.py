"""Keeps the folder of a version from being dropped while somebody has it open.

In: a folder. Out: a shared lock on it (flock(2)), which the system lets go of when its process ends, however it ends.
Must not import anything outside the standard library but ``runtimes``.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.bundle.lock import is_still
from runtimes.errors import CorruptArtifact

# File systems over a network that lock no folders.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL}


class Hold:
    """A folder that nobody drops for as long as this object lives."""

    def __init__(self, folder: Path) -> None:
        """Hold a folder; where the file system cannot, it is opened all the same.

        Raises:
            CorruptArtifact: it is being dropped, or gone.
        """
        try:
            handle = _open(folder)
        except FileNotFoundError as error:
            raise _explain_gone(folder) from error
        weakref.finalize(self, os.close, handle)
        if not _lock(handle, is_shared=True) or not is_still(handle, folder):
            raise _explain_gone(folder)


@contextmanager
def unless_held(folder: Path, *, without_locks: bool = True) -> Iterator[bool]:
    """Say whether nobody holds a folder; if so, nobody can while the block runs.

    Args:
        folder: Which one.
        without_locks: What to say where the file system locks nothing.
    """
    if folder.is_symlink() or not folder.is_dir():
        yield True  # no version, whatever has its name
        return
    handle = _open(folder)
    try:
        yield _lock(handle, is_shared=False, without_locks=without_locks)
    finally:
        os.close(handle)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _lock(handle: int, *, is_shared: bool, without_locks: bool = True) -> bool:
    """Lock a folder without waiting; whether nobody keeps us from it."""
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return without_locks
    return True


def _explain_gone(folder: Path) -> CorruptArtifact:
    return CorruptArtifact("the version was dropped meanwhile", where=str(folder), cure="open the bundle again")
