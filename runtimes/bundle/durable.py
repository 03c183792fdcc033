"""What was written is on the disk, and a link points to the old or the new, whenever the power goes.

In: paths. Must not import anything but the standard library.

Source: POSIX.1-2017, rename() is atomic; fsync(2) of Linux: a file's own fsync does not cover its entry in the folder.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path


def sync_tree(directory: Path) -> None:
    """Wait until every file below ``directory``, and every entry of every folder, is on the disk."""
    for folder, _, files in os.walk(directory, topdown=False):
        for path in (Path(folder) / name for name in files):
            # A link that leads nowhere, or a pipe, is none of ours and must not stop a repair.
            if path.is_file():
                sync(path)
        sync(Path(folder))


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folders(path: Path) -> None:
    """Make a folder and those above it, unless they are there; each is on the disk, and everybody reads it."""
    for folder in reversed(list_missing(path)):
        folder.mkdir(exist_ok=True)  # another process may have been faster
        folder.chmod(0o755)
        sync(folder.parent)


def list_missing(path: Path) -> list[Path]:
    """Return a folder and those above it, as far as they are not there, the innermost first."""
    return list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))


def point(link: Path, target: str) -> None:
    """Let ``link`` point to ``target`` from now on, by a rename: a reader finds the old target or the new one."""
    prepare(link, target)
    switch(link)


def prepare(link: Path, target: str) -> None:
    """Write down, where it lasts, what ``link`` is to point to once :func:`switch` is called."""
    drop_half_switched(link)
    name_fresh(link).symlink_to(target)
    sync(link.parent)


def switch(link: Path) -> None:
    """Let ``link`` point to what was prepared."""
    name_fresh(link).replace(link)
    sync(link.parent)


def drop_half_switched(link: Path) -> None:
    """Remove what a process left that was killed while it let ``link`` point elsewhere. Only for who holds the lock."""
    name_fresh(link).unlink(missing_ok=True)


def name_fresh(link: Path) -> Path:
    """Return where lies what ``link`` is to become."""
    return link.with_name(f".{link.name}.new")


def remove(path: Path) -> None:
    """Remove a folder with all below it, or whatever else is there; a link itself, never what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
