"""A folder for files of the moment, which goes with the block that asked for it, or at the latest with the next one.

In: nothing. Out: a folder in that of temporary files. Must not import anything outside ``runtimes``.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.bundle.durable import remove
from runtimes.bundle.hold import Hold, unless_held

# A folder is held a moment after it is made.
_YOUNG_S = 60


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Yield an empty folder of a name that starts so; those that killed processes of this user left are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _drop_left(left)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        hold = Hold(Path(name))
        yield Path(name)
        del hold


def _drop_left(folder: Path) -> None:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return  # its process ended meanwhile
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if is_own and time.time() - found.st_mtime > _YOUNG_S:
        with unless_held(folder, without_locks=False) as is_free:
            if is_free:
                remove(folder)
