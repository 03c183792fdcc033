"""Where a target works: a folder with a room in it; and what every target does there."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OUTSIDE = bytes(range(256)) * 4


@dataclass(frozen=True)
class Place:
    """A folder with a room in it, below the folder for temporary files."""

    base: Path
    room: Path


@cache
def _find_base():
    return tempfile.TemporaryDirectory(prefix="fuzz-bundle-")


@cache
def find_place():
    base = Path(_find_base().name)
    room = base / "room"
    room.mkdir()
    (base / "outside").write_bytes(OUTSIDE)
    return Place(base=base, room=room)


def check_message(error):
    """A refusal can be printed: one that carries what a terminal obeys is an attack on who reads it."""
    text = str(error)
    assert all(mark not in text for mark in "\x1b\x07\x9b\r"), text
    assert len(text) < 4000, text


def write_files(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def empty(folder):
    if not folder.exists():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
