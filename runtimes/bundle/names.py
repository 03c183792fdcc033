"""What names and paths a bundle may use: those that mean the same on every file system, and nothing outside.

In: strings. Out: nothing, or an error. Must not import anything but the standard library and ``runtimes``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from runtimes.bundle.strict_json import corrupt

MAX_PATH = 200
SHA256 = re.compile(r"[0-9a-f]{64}")
# Devices of Windows, in any folder, case, and with any suffix ("Naming Files, Paths, and Namespaces").
_NO_DEVICE = r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z))"
# A bundle's and a variant's name: each becomes a folder. No dot first (hidden) nor last (Windows drops it).
NAME = re.compile(rf"(?=.{{1,64}}\Z){_NO_DEVICE}[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_PART = re.compile(rf"{_NO_DEVICE}[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")


def check_path(path: str, where: str) -> None:
    """Refuse what is not a plain relative path: ``parts/of/letters-digits_.``, nowhere a dot first or last.

    Raises:
        CorruptArtifact: it is absolute, leaves its folder, is too long, has other characters, or names a device.
    """
    if len(path) > MAX_PATH or not all(_PART.fullmatch(part) for part in path.split("/")):
        raise corrupt(f"the path {path[:80]!r} is not allowed", where)


def check_distinct(names: Iterable[str], where: str) -> None:
    """Refuse names that are one on a file system that does not tell case, and files that are folders of others.

    Raises:
        CorruptArtifact: two collide.
    """
    seen: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in seen:
            raise corrupt(f"{name!r} and {seen[folded]!r} differ in case alone", where)
        seen[folded] = name
    for folded, name in seen.items():
        parts = folded.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in seen:
                raise corrupt(f"{name!r} lies in what is a file itself", where)
