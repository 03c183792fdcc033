"""Versions as numbers that compare. Must not import anything of ours."""

from __future__ import annotations


def count_version(version: str) -> tuple[int, ...]:
    """``1.31.1`` -> (1, 31): what a package can do changes with minor versions.

    Raises:
        ValueError: a part is no number.
    """
    return tuple(int(part) for part in version.split(".")[:2])
