"""What goes into a bundle, by what it holds: equal files are kept once, whatever they are called.

In: files and bytes. Out: their sha256 and size, and where each is had from. Must not import a runtime.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from runtimes.artifact import hash_file


class Blobs:
    """Collects what goes into a bundle. A file must not change before the bundle is written."""

    def __init__(self) -> None:
        self._sources: dict[str, Path | bytes] = {}

    def add(self, source: Path | bytes) -> str:
        """Take a file or bytes and return the sha256."""
        sha256 = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else hash_file(source)
        self._sources.setdefault(sha256, source)
        return sha256

    def sources(self) -> dict[str, Path | bytes]:
        """Return where each blob is had from, by sha256."""
        return dict(sorted(self._sources.items()))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each blob, by sha256."""
        return {sha256: _measure(source) for sha256, source in self.sources().items()}


def _measure(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size
