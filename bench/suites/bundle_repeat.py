"""Whether packing is reproducible: the same export under other clocks, zones, locales, umasks, users and paths.

In: an exported directory. Out: the sha256 of each bundle. The clock is set by ``faketime`` where that is installed.
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
from runtimes.errors import UnsupportedModel

_ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu")
_LOCALES = ("C", "C.UTF-8", "tr_TR.UTF-8", "ja_JP.UTF-8")
_UMASKS = (0o022, 0o077, 0o002, 0o007)
_CLOCKS = ("1999-12-31 23:59:58", "2038-01-19 03:14:06", "2024-02-29 12:00:00")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One bundle: where and how it was packed, and what came out."""

    conditions: Mapping[str, str]
    sha256: str
    size_bytes: int


def pack_repeatedly(export: Path, *, count: int, options: tuple[str, ...] = (), seed: int = 0) -> tuple[Packed, ...]:
    """Pack ``count`` times, each from a copy in another place, under conditions drawn by ``seed``.

    Raises:
        UnsupportedModel: `stepdown pack` failed; the message ends with what it said.
    """
    draw, found = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(count):
            folder = Path(scratch) / f"{draw.choice(('a', 'deeper/b', 'with space/c'))}-{number}"
            copy = shutil.copytree(export, folder / export.name)
            files = [path for path in copy.rglob("*") if path.is_file()]
            for path in files:
                os.utime(path, (draw.randrange(2**31), draw.randrange(2**31)))
            found.append(_pack(copy, options, draw))
            shutil.rmtree(folder)
    return tuple(found)


def _pack(export: Path, options: tuple[str, ...], draw: random.Random) -> Packed:
    clock, umask = draw.choice(_CLOCKS), draw.choice(_UMASKS)
    conditions = {
        "TZ": draw.choice(_ZONES),
        "LC_ALL": draw.choice(_LOCALES),
        "HOME": str(export.parent),
        "USER": f"user{draw.randrange(100)}",
        "PYTHONHASHSEED": str(draw.randrange(2**32)),
    }
    faketime = shutil.which("faketime")
    prefix = [faketime, clock] if faketime is not None else []
    output = export.parent / "bundle.stepdown.tar.gz"
    command = [sys.executable, "-m", "exporter.cli", "pack", str(export), "-o", str(output), *options]
    done = subprocess.run(
        [*prefix, *command],
        env={**os.environ, "PYTHONPATH": str(_ROOT), **conditions},
        cwd=export.parent,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UnsupportedModel(f"it ended with {done.returncode}: {done.stderr.strip()[-600:]}", where=str(export))
    told = {**conditions, "umask": f"{umask:03o}", "clock": clock if faketime is not None else "as it is"}
    return Packed(
        conditions={key: value for key, value in told.items() if key != "HOME"},
        sha256=hash_file(output),
        size_bytes=output.stat().st_size,
    )
