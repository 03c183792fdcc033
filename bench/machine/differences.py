"""What differs between two machines, in words: what makes timings of one say little about the other.

In: two descriptions (:func:`bench.machine.description.describe_machine`). Out: one sentence for each difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.machine.description import FINGERPRINT


def list_differences(base: Mapping[str, Any], head: Mapping[str, Any]) -> tuple[str, ...]:
    """Compare everything that makes timings comparable; empty where nothing differs.

    The two have the same :func:`bench.machine.description.fingerprint` exactly when nothing is listed.
    """
    return tuple(
        sentence for key in FINGERPRINT if base.get(key) != head.get(key) for sentence in _compare(key, base, head)
    )


def _compare(key: str, base: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    ours, theirs = base.get(key), head.get(key)
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        names = sorted({*ours, *theirs}, key=str)
        return [
            _say(f"{key}: {name}", ours.get(name), theirs.get(name))
            for name in names
            if ours.get(name) != theirs.get(name)
        ]
    if (
        isinstance(ours, list | tuple)
        and isinstance(theirs, list | tuple)
        and set(map(str, ours)) != set(map(str, theirs))
    ):
        return [_compare_sets(key, ours, theirs)]
    return [_say(key, ours, theirs)]


def _compare_sets(key: str, ours: Sequence[object], theirs: Sequence[object]) -> str:
    """Name only what one side has: a CPU lists a hundred features."""
    only_base = sorted(set(map(str, ours)) - set(map(str, theirs)))
    only_head = sorted(set(map(str, theirs)) - set(map(str, ours)))
    sides = [
        f"only {side} has {', '.join(found)}" for side, found in (("base", only_base), ("head", only_head)) if found
    ]
    return f"{key}: {'; '.join(sides)}"


def _say(what: str, ours: object, theirs: object) -> str:
    return f"{what}: {_name(ours)} -> {_name(theirs)}"


def _name(value: object) -> str:
    return "not known" if value is None else str(value)
