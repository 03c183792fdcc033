"""A Python environment of a tool's own, so that its pins touch nothing of ours: made once, by pip, in a folder.

In: a folder and requirements. Out: the environment's Python, and what is installed in it.
"""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from runtimes.atomic import write_text
from runtimes.errors import MissingDependency

#: What was asked for.
ASKED = "asked.txt"
# What was really installed, written last: an environment without it is made again.
_RECORD = "installed.txt"


def open_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Return the Python of the environment in ``folder``, made anew unless it was made of these requirements.

    Raises:
        MissingDependency: they cannot be installed; the message ends with what pip said last.
    """
    python, asked, record = folder / "bin" / "python", folder / ASKED, folder / _RECORD
    wanted = "".join(f"{one}\n" for one in requirements)
    if record.is_file() and asked.read_text(encoding="utf-8") == wanted:
        return python
    venv.EnvBuilder(clear=True, with_pip=True).create(folder)
    write_text(asked, wanted)
    done = _run_pip(python, "install", "--quiet", *requirements)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingDependency(
            f"cannot install {' '.join(requirements)}: {reason}",
            where=str(folder),
            cure="connect to a package index once; the environment is kept",
        )
    write_text(record, _run_pip(python, "freeze").stdout)
    return python


def list_installed(folder: Path) -> tuple[str, ...]:
    """Return what is installed in an environment, one ``name==version`` each."""
    return tuple((folder / _RECORD).read_text(encoding="utf-8").splitlines())


def _run_pip(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)
