"""An environment as a device has it: a wheel of these sources with the extras named, and nothing else."""

import os
import subprocess
import venv
from pathlib import Path

import pytest

from tests.cli.test_wheel import build_wheel, list_sources

ROOT = Path(__file__).parents[1]


def make_device(folder: Path, extras: str) -> Path:
    """Make the environment below ``folder`` and return its own; skip the test where there is no package registry."""
    source = folder / "source"
    for name in list_sources():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    wheel = build_wheel(source, folder / "wheel")
    venv.create(folder / "venv", with_pip=True)
    command = [folder / "venv" / "bin" / "pip", "install", "--quiet", f"stepdown[{extras}] @ {wheel.as_uri()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr and not os.environ.get("REQUIRE_ASSETS"):
        pytest.skip(f"no package registry: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "venv"
