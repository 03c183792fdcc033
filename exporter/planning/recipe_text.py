"""A recipe as the TOML that ``stepdown compress`` reads, with a remark above each step.

In: a recipe. Out: text that :func:`compression.recipe.parse_recipe` reads back as an equal one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compression.recipe import Recipe


def format_recipe(recipe: Recipe, *, head: Sequence[str] = (), remarks: Sequence[str] = ()) -> str:
    """Return a recipe as TOML; options that have their defaults are left out.

    Args:
        recipe: What to write.
        head: Lines of remarks at the top.
        remarks: One for each step, empty for none.
    """
    lines = [f"# {line}" for line in head]
    lines += [f"name = {_format(recipe.name)}", f"seed = {recipe.seed}", f"max_length = {recipe.max_length}"]
    if recipe.predicted is not None:
        lines += ["", "[predicted]", *_list_entries(dataclasses.asdict(recipe.predicted))]
    for place, step in enumerate(recipe.steps):
        remark = remarks[place] if place < len(remarks) else ""
        lines += ["", *([f"# {remark}"] if remark else []), "[[steps]]", f"do = {_format(step.do)}"]
        lines += _list_entries(_list_changed(step.options))
    return "\n".join(lines) + "\n"


def _list_entries(table: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_format(value)}" for name, value in table.items()]


def _list_changed(options: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass of any step
    """Return the options that are not as they are by default, tables inside them likewise."""
    changed = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value is None or value == default:
            continue
        changed[field.name] = _list_changed(value) if dataclasses.is_dataclass(value) else value
    return changed


def _format(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_list_entries(value)) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_format, value)) + "]"
    # JSON's text, numbers and truth values are TOML's too.
    return json.dumps(value, ensure_ascii=False)
