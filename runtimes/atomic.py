"""Write beside the target, then rename: a reader sees the old state or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runtimes.errors import OutputError, UsageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# No permission, or no such place.
_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG),
}


def explain_no_room(error: OSError, target: Path, *, chosen_by: str = "") -> OutputError | None:
    """Return the error that names the cure where ``error`` says that a disk, quota or file is full, else None.

    Args:
        error: What the system said.
        target: What was to be written.
        chosen_by: What names the place, where that is no option that the user gave.
    """
    if error.errno not in _NO_ROOM:
        return None
    cure = f"free space, or choose another place{f' by {chosen_by}' if chosen_by else ''}"
    return OutputError(f"no room left: {error.strerror}", where=str(target), cure=cure)


@contextmanager
def saying_no_room(target: Path) -> Iterator[None]:
    """Turn a full disk, quota or file, while ``target`` is made, into the error that names the cure."""
    try:
        yield
    except OSError as error:
        full = explain_no_room(error, target)
        if full is not None:
            raise full from error
        raise


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to make ``target`` into errors that name the cure."""
    try:
        with saying_no_room(target):
            yield
    except OSError as error:
        if error.errno in _REFUSED:
            cure = "see what lies there and who may write to it, or choose another place"
            raise OutputError(f"it cannot be written: {error.strerror}", where=str(target), cure=cure) from error
        raise


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file in the folder of ``path`` and rename it to ``path`` when the block succeeds.

    Raises:
        OutputError: no room, no permission or no such place; ``path`` keeps what it had.
    """
    with explained(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with saying_no_room(path), os.fdopen(handle, "wb") as stream:
            yield stream
        with explained(path):
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` by way of a temporary file in the same folder.

    Raises:
        OutputError: no room, no permission or no such place; ``path`` keeps what it had.
    """
    with new_file(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; see :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def append_bytes(path: Path, data: bytes) -> None:
    """Add ``data`` to the end of ``path``, which is made if it is not there.

    Raises:
        OutputError: no room, no permission or no such place; ``path`` keeps what it had.
    """
    # Without a buffer, which would write again on closing what had just been taken back.
    with explained(path), path.open("ab", buffering=0) as stream:
        size, left = stream.tell(), memoryview(data)
        try:
            while left:
                left = left[stream.write(left) :]
        except BaseException:  # Ctrl-C included: half an entry would spoil the whole file
            os.ftruncate(stream.fileno(), size)
            raise


def make_directory(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        OutputError: no room, no permission or no such place.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def new_directory(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty directory beside ``target`` and rename it to ``target`` when the block succeeds.

    On any failure, Ctrl-C included, the temporary directory is removed and a previous ``target`` is untouched.

    Raises:
        UsageError: ``target`` exists and ``force`` is not given.
        OutputError: no room, no permission or no such place.
    """
    if target.exists() and not force:
        raise UsageError("the output directory exists", where=str(target), cure="pass --force to replace it")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with saying_no_room(target):
            yield staging
        with explained(target):
            staging.chmod(0o755)
            _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; the old one is removed only after the new one stands."""
    if not target.exists():
        staging.rename(target)
        return
    old = target.with_name(f".{target.name}.old{os.getpid()}")
    target.rename(old)
    try:
        staging.rename(target)
    except BaseException:  # Ctrl-C between the two renames included
        if not target.exists():
            old.rename(target)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink()
