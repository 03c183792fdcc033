"""Tables of a recipe as frozen dataclasses: names, types and ranges checked, with the nearest name where one is wrong.

In: a table as TOML gives it and a dataclass. Out: an instance, or UsageError. Must not import torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from runtimes.errors import UsageError

T = TypeVar("T")

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class OptionError(ValueError):
    """A value that its own options refuse, raised in their ``__post_init__``; the reader adds where it stands."""

    def __init__(self, field: str, problem: str, cure: str | None = None) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem, self.cure = field, problem, cure


def read_options(cls: type[T], table: Mapping[str, object], where: str) -> T:
    """Make ``cls``, a dataclass, of a table.

    Fields may be str, int, float, bool, Literal, tuple[..., ...] of these, another dataclass, or any of these or None.

    Args:
        cls: What to make.
        table: Names to values, as ``tomllib`` gives them.
        where: The place of the table, such as ``recipe.toml: steps[2]``.

    Raises:
        UsageError: a key that is not known or missing, a wrong type, or a value out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type] # T is a dataclass
    for name in table:
        refuse_unknown("option", name, fields, join_place(where, name))
    missing = [name for name, field in fields.items() if name not in table and not _has_default(field)]
    if missing:
        raise UsageError(f"{missing[0]!r} is missing", where=where, cure=f"add {missing[0]} = ...")
    hints = typing.get_type_hints(cls)
    values = {name: _read_value(hints[name], value, join_place(where, name)) for name, value in table.items()}
    try:
        return cls(**values)
    except OptionError as error:
        raise UsageError(error.problem, where=join_place(where, error.field), cure=error.cure) from error


def refuse_unknown(kind: str, word: str, known: Iterable[str], where: str) -> None:
    """Raise UsageError, with the nearest name, unless ``word`` is one of ``known``."""
    choices = sorted(known)
    if word not in choices:
        near = difflib.get_close_matches(word, choices, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown {kind} {word!r}", where=where, cure=f"{hint}Known: {_list(choices)}")


def join_place(where: str, name: str) -> str:
    """Return the place of ``name`` in the table at ``where``: ``recipe.toml: seed``, ``recipe.toml: steps[2].seed``."""
    return f"{where}.{name}" if ": " in where else f"{where}: {name}"


def plain_options(options: object) -> dict[str, Any]:
    """Return options as JSON data, defaults included."""
    return {key: _plain(value) for key, value in dataclasses.asdict(options).items()}  # type: ignore[call-overload]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _read_value(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type hint of any form
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        (inner,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        return _read_value(inner, value, where)
    if origin is Literal:
        return _read_choice(typing.get_args(hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong_type("a list", value, where)
        inner = typing.get_args(hint)[0]
        return tuple(_read_value(inner, item, f"{where}[{place}]") for place, item in enumerate(value))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise _wrong_type("a table", value, where)
        return read_options(hint, value, where)
    return _read_scalar(hint, value, where)


def _read_scalar(hint: type, value: object, where: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise _wrong_type(_NAMES[hint], value, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{value} is not a finite number", where=where, cure="give a finite number")
    return value


def _read_choice(choices: tuple[object, ...], value: object, where: str) -> object:
    if value in choices and not isinstance(value, bool):
        return value
    known = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"{value!r} is not known", where=where, cure=f"{hint}Known: {_list(known)}")


def _wrong_type(wanted: str, value: object, where: str) -> UsageError:
    return UsageError(f"{value!r} is not {wanted}", where=where, cure=f"give {wanted}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
