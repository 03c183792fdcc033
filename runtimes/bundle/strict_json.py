"""JSON from a place that is not trusted: bounded, without what JSON allows and nobody should write.

In: bytes. Out: plain values, and :class:`Fields` to take each field of an object by its type exactly once. Refused are
duplicate keys, NaN and infinities, half characters, deep nesting, and fields nobody asks for. Must not import anything
but the standard library and ``runtimes.errors``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from re import Pattern
from typing import Any, TypeVar

from runtimes.errors import CorruptArtifact

T = TypeVar("T")

CURE = "fetch the bundle again; where that does not help, pack it again"
# A description nests about eight deep; recipes and options a few more.
MAX_DEPTH = 32
# Above this a double has no room for every whole number, so that readers of JSON would disagree.
MAX_INTEGER = 2**53 - 1
_MAX_TEXT = 100_000
# A tokenizer of a quarter of a million words and half a million merges has two million; each takes up to a hundred
# bytes of memory, whatever it takes in the file.
_MAX_VALUES = 4_000_000
# Of a message and its place: names in a bundle may be as long as it likes.
_SHOWN = 500


def corrupt(what: str, where: str) -> CorruptArtifact:
    """Return the error for something that does not hold together in a bundle."""
    return CorruptArtifact(what[:_SHOWN], where=where[:_SHOWN], cure=CURE)


class Mismatch(CorruptArtifact):
    """Something is not what the bundle says: ``problem`` names it, ``expected`` and ``found`` say both."""

    def __init__(self, what: str, *, where: str, expected: str, found: str) -> None:
        self.problem, self.expected, self.found = what, expected, found
        super().__init__(f"{what}: expected {expected}, found {found}", where=where, cure=CURE)


def mismatch(what: str, where: str, *, expected: object, found: object) -> Mismatch:
    """Return the error for something that is not what the bundle says of it."""
    return Mismatch(what, where=where[:_SHOWN], expected=str(expected)[:_SHOWN], found=str(found)[:_SHOWN])


def load_json(data: bytes, where: str, *, large_integers: bool = False) -> Any:  # noqa: ANN401 (JSON is what it is)
    """Parse bytes strictly.

    Args:
        data: UTF-8.
        where: Its place, for messages.
        large_integers: Whether whole numbers beyond 2**53 may be there, as files of other tools have them.

    Raises:
        CorruptArtifact: not UTF-8, not JSON, or JSON with something that is refused (see the module).
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > _MAX_VALUES:  # those in strings count too, so at most too many
        raise corrupt(f"it has more than {_MAX_VALUES:,} values", where)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
        _check_value(value, 0, large_integers=large_integers)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"it cannot be read: {error}", where) from error
    return value


def dump_json(value: object) -> bytes:
    """Return the one form in which bundles hold JSON: UTF-8, keys sorted, indented by one, a newline at the end."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


class Fields:
    """The fields of one JSON object: each is taken once, and :meth:`close` refuses what was not asked for.

    Args:
        value: What should be an object.
        where: Its place, for messages (``bundle.json:variants[0]``).
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise corrupt(f"an object is needed, not {_kind(value)}", where)
        self._left: dict[str, Any] = dict(value)
        self.where = where

    def place(self, key: str) -> str:
        """Return where a field is."""
        return f"{self.where}.{key}" if ":" in self.where else f"{self.where}:{key}"

    def text(self, key: str, pattern: Pattern[str] | None = None, max_length: int = _MAX_TEXT) -> str:
        """Take a string that the pattern matches as a whole."""
        value = self._take(key)
        if not isinstance(value, str):
            raise corrupt(f"a string is needed, not {_kind(value)}", self.place(key))
        if len(value) > max_length or (pattern is not None and pattern.fullmatch(value) is None):
            raise corrupt(f"{value[:80]!r} is not allowed here", self.place(key))
        return value

    def integer(self, key: str, low: int = 0, high: int = MAX_INTEGER) -> int:
        """Take a whole number within bounds, both included."""
        value = self._take(key)
        if type(value) is not int:
            raise corrupt(f"a whole number is needed, not {_kind(value)}", self.place(key))
        if not low <= value <= high:
            raise corrupt(f"{value} is outside of {low} to {high}", self.place(key))
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """Take a number within bounds, both included."""
        value = self._take(key)
        if type(value) not in {int, float}:
            raise corrupt(f"a number is needed, not {_kind(value)}", self.place(key))
        if not low <= value <= high:
            raise corrupt(f"{value} is outside of {low} to {high}", self.place(key))
        return float(value)

    def all(self) -> dict[str, Any]:
        """Return every field that is left, as it is."""
        return dict(self._left)

    def mapping(self, key: str) -> dict[str, Any]:
        """Take an object, its values as they are."""
        value = self._take(key)
        if not isinstance(value, dict):
            raise corrupt(f"an object is needed, not {_kind(value)}", self.place(key))
        return value

    def items(self, key: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
        """Take a list, each item read with its place."""
        value = self._take(key)
        if not isinstance(value, list):
            raise corrupt(f"a list is needed, not {_kind(value)}", self.place(key))
        return tuple(read(item, f"{self.place(key)}[{number}]") for number, item in enumerate(value))

    def nested(self, key: str, read: Callable[[Any, str], T]) -> T:
        """Take a value that ``read`` reads with its place."""
        return read(self._take(key), self.place(key))

    def optional(self, key: str, take: Callable[[str], T]) -> T | None:
        """Take None for null, else what ``take`` (a method of this object) gives."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return take(key)

    def close(self) -> None:
        """Refuse fields that were not taken."""
        if self._left:
            unknown = ", ".join(repr(key[:80]) for key in sorted(self._left)[:5])
            raise corrupt(f"unknown field: {unknown}", self.where)

    def _take(self, key: str) -> Any:  # noqa: ANN401
        if key not in self._left:
            raise corrupt(f"'{key}' is missing", self.where)
        return self._left.pop(key)


def read_text(value: object, where: str) -> str:
    """Return an item that is a string."""
    if not isinstance(value, str):
        raise corrupt(f"a string is needed, not {_kind(value)}", where)
    return value


def read_choice(choices: Sequence[T]) -> Callable[[object, str], T]:
    """Return what reads an item that is one of ``choices``, words."""

    def read(value: object, where: str) -> T:
        for choice in choices:
            if value == choice:
                return choice
        raise corrupt(f"{value!r} is none of {', '.join(map(str, choices))}"[:200], where)

    return read


def read_texts(values: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return an object whose values are all strings."""
    return {key: read_text(value, f"{where}.{key}") for key, value in values.items()}


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = max(counts, key=counts.__getitem__)
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large")
    return value


def _check_value(value: object, depth: int, *, large_integers: bool) -> None:
    """Refuse nesting that later code would recurse into, numbers that others read otherwise, and half characters."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        value.encode("utf-8")  # half of a surrogate pair, written as an escape, is a UnicodeEncodeError: a ValueError
    elif isinstance(value, int) and abs(value) > MAX_INTEGER and not large_integers:
        raise ValueError("a whole number beyond 2**53")
    elif isinstance(value, dict):
        for key, inner in value.items():
            key.encode("utf-8")
            _check_value(inner, depth + 1, large_integers=large_integers)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner, depth + 1, large_integers=large_integers)
