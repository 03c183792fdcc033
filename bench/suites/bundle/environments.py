"""What a device installs, beside what serving the same model with transformers takes.

In: a folder to make environments in. Out: their Pythons, sizes and contents. Each is made once, by pip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.environment import list_installed, open_environment

DEVICE, TRANSFORMERS = "stepdown[device]", "optimum + transformers + torch"
_ROOT = Path(__file__).parents[3]
_PEERS = ("optimum>=2.0", "requests>=2.31", "torch==2.13.0", "transformers==5.23.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment: its Python, the bytes of all its files, and what is installed in it."""

    python: Path
    size_bytes: int
    packages: tuple[str, ...]


def make_environments(work: Path, peers: Sequence[str] = _PEERS) -> Mapping[str, Environment]:
    """Return both environments, made where they are not there.

    Raises:
        MissingDependency: pip cannot install one.
    """
    # An environment of other sources is another one.
    own = work / f"environment-device-{_hash_sources()[:12]}"
    return {
        DEVICE: _describe(own, (f"{_ROOT}[device]",)),
        TRANSFORMERS: _describe(work / "environment-transformers", peers),
    }


def measure_tree(folder: Path) -> int:
    """Return the bytes of all files below a folder; links count nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _describe(folder: Path, requirements: Sequence[str]) -> Environment:
    python = open_environment(folder, requirements)
    # Of what was installed from a folder, the name alone.
    packages = tuple(package.partition(" @ ")[0] for package in list_installed(folder))
    return Environment(python=python, size_bytes=measure_tree(folder), packages=packages)


def _hash_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted((_ROOT / "runtimes").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
