"""Which commit the working directory is at. In: nothing. Out: its hash. Must not import a runtime."""

from __future__ import annotations

import subprocess
from pathlib import Path


def find_commit(directory: Path | None = None) -> str | None:
    """Return the commit that git has checked out in ``directory`` (by default the working directory).

    None outside a repository, in one without a commit, and where there is no git that answers.
    """
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=directory, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # the commit is a note: a measurement is not lost for it
    return done.stdout.strip() or None if done.returncode == 0 else None
