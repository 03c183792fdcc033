"""Whether packing is reproducible: other clocks, zones, locales, umasks, users, paths and orders of files.

In: an exported directory. Out: the sha256 of each bundle. Needs ``faketime``, which sets the clock, and the locales.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import hash_file
from runtimes.errors import MissingDependency, UnsupportedModel

_ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu")
_LOCALES = ("C", "C.UTF-8", "tr_TR.UTF-8", "ja_JP.UTF-8")
_UMASKS = (0o022, 0o077, 0o002, 0o007)
_CLOCKS = ("1999-12-31 23:59:58", "2038-01-19 03:14:06", "2024-02-29 12:00:00")
_ROOT = Path(__file__).parents[3]
# A file system in memory lists files in the order they were made in, others by their names' hashes.
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One bundle: where and how it was packed, and what came out."""

    conditions: Mapping[str, str]
    sha256: str
    size_bytes: int


def pack_repeatedly(export: Path, *, count: int, options: tuple[str, ...] = (), seed: int = 0) -> tuple[Packed, ...]:
    """Pack ``count`` times, each from a copy in another place, under conditions drawn by ``seed``.

    Raises:
        MissingDependency: there is no ``faketime``, or one of the locales is not installed.
        UnsupportedModel: `stepdown pack` failed; the message ends with what it said.
    """
    faketime = _find_faketime()
    _require_locales()
    draw, found = random.Random(seed), []
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        for number in range(count):
            folder = Path(scratch) / f"{draw.choice(('a', 'deeper/b', 'with space/c'))}-{number}"
            copy = _copy_in_any_order(export, folder / export.name, draw)
            found.append(_pack(copy, options, draw, faketime))
            shutil.rmtree(folder)
    return tuple(found)


def _copy_in_any_order(source: Path, target: Path, draw: random.Random) -> Path:
    """Copy the files in a drawn order, with drawn times."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in draw.sample(files, len(files)):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        os.utime(copy, (draw.randrange(2**31), draw.randrange(2**31)))
    return target


def _find_faketime() -> str:
    found = shutil.which("faketime")
    if found is None:
        raise MissingDependency("there is no faketime to set clocks with", cure="apt install faketime")
    return found


def _require_locales() -> None:
    """A locale that is not installed is silently taken for C."""
    done = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False)
    there = {_fold(name) for name in done.stdout.split()}
    if missing := [name for name in _LOCALES if _fold(name) not in there]:
        raise MissingDependency(f"no locale {', '.join(missing)} is installed", cure="apt install locales-all")


def _fold(locale: str) -> str:
    return locale.lower().replace("-", "")


def _pack(export: Path, options: tuple[str, ...], draw: random.Random, faketime: str) -> Packed:
    clock, umask = draw.choice(_CLOCKS), draw.choice(_UMASKS)
    conditions = {
        "TZ": draw.choice(_ZONES),
        "LC_ALL": draw.choice(_LOCALES),
        "HOME": str(export.parent),
        "USER": f"user{draw.randrange(100)}",
        "PYTHONHASHSEED": str(draw.randrange(2**32)),
    }
    output = export.parent / "bundle.stepdown.tar.gz"
    command = [sys.executable, "-m", "exporter.cli", "pack", str(export), "-o", str(output), *options]
    done = subprocess.run(
        [faketime, clock, *command],
        env={**os.environ, "PYTHONPATH": str(_ROOT), **conditions},
        cwd=export.parent,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UnsupportedModel(f"it ended with {done.returncode}: {done.stderr.strip()[-600:]}", where=str(export))
    told = {**conditions, "umask": f"{umask:03o}", "clock": clock}
    return Packed(
        conditions={key: value for key, value in told.items() if key != "HOME"},
        sha256=hash_file(output),
        size_bytes=output.stat().st_size,
    )
