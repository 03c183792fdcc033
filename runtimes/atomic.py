"""Write beside the target, then rename: a reader sees the old state or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.errors import OutputError, UsageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def explain_refusals(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into errors that name the cure.

    Raises:
        OutputError: no room, or no permission.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OutputError(
                f"no room left: {error.strerror}", where=str(target), cure="free space or choose another -o"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise OutputError(
                f"not allowed to write: {error.strerror}", where=str(target), cure="choose another -o"
            ) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` by way of a temporary file in the same folder.

    Raises:
        OutputError: no room, or no permission; ``path`` keeps what it had.
    """
    with explain_refusals(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; see :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def new_directory(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty directory beside ``target`` and rename it to ``target`` when the block succeeds.

    On any failure, Ctrl-C included, the temporary directory is removed and a previous ``target`` is untouched.

    Raises:
        UsageError: ``target`` exists and ``force`` is not given.
        OutputError: no room, or no permission.
    """
    if target.exists() and not force:
        raise UsageError("the output directory exists", where=str(target), cure="pass --force to replace it")
    with explain_refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            staging.chmod(0o755)
            yield staging
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
    except OSError:
        old.rename(target)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink()
