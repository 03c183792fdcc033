"""Packing the same once more gives the same bytes."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.unit.exporter.packing.tiny_export import write_export

ROOT = Path(__file__).parents[3]


VARIED = {
    "as it is": {},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "another locale": {"LC_ALL": "tr_TR.UTF-8"},
    "another hash seed": {"PYTHONHASHSEED": "12345"},
    "another home and user": {"HOME": "/nonexistent", "USER": "somebody", "LOGNAME": "somebody"},
}


def test_the_same_export_gives_the_same_bytes_wherever_it_lies_and_whoever_packs_it(tmp_path, key):
    """In processes of their own, from folders of other names, whose files have other times and modes.

    Where the clock can be set, it says something else each time.
    """
    faketime = shutil.which("faketime")
    found = set()
    for number, environment in enumerate(VARIED.values()):
        folder = write_export(tmp_path / f"place-{number}" / f"export {number}")
        names = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=number % 2 == 1)
        for at, path in enumerate(names):
            path.chmod(0o600 if number % 2 else 0o644)
            os.utime(path, (at * 1000 + number, at * 1000 + number))
        output = folder.parent / f"{number}.tar.gz"
        devices = ["--device", "x86-64-avx2", "--device", "x86-64-vnni"]
        command = [sys.executable, "-m", "exporter.cli", "pack", str(folder), "-o", str(output), "--sign", str(key)]
        clock = [faketime, f"{2001 + 7 * number}-12-31 23:59:58"] if faketime else []
        done = subprocess.run(
            [*clock, *command, *devices],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=folder.parent,
            umask=0o077 if number % 2 else 0o022,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.add(hashlib.sha256(output.read_bytes()).hexdigest())
        assert output.stat().st_mode & 0o777 == 0o644
    assert len(found) == 1
