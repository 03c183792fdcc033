"""Finding the layers of a model by name: what ``layers = [...]`` of a recipe means, in one place.

In: a model and patterns. Out: names and modules, or UsageError with the nearest names. Imports torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from runtimes.errors import UnsupportedModel, UsageError


def select_linears(model: nn.Module, patterns: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """Return the linears whose names match, by name, in the model's order.

    Args:
        model: Any module.
        patterns: Names or parts of names, each part as in ``fnmatch``: ``encoder.layer.*.output.dense`` are the second
            linears of the feed-forwards and not those of attention, ``encoder.layer.0`` all linears of the first layer.
            Empty: every linear of the encoder layers, no pooler, head or classifier.

    Raises:
        UsageError: a pattern matches no linear; the message has the nearest names.
        UnsupportedModel: no patterns, and the model has no encoder layers.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if patterns:
        chosen = match_names(linears, patterns, "linear")
        return {name: linears[name] for name in chosen}
    stacks = tuple(f"{name}." for name in find_stacks(model))
    found = {name: linear for name, linear in linears.items() if name.startswith(stacks)} if stacks else {}
    if not found:
        raise UnsupportedModel(
            "no stack of layers with linears was found in the model",
            where=type(model).__name__,
            cure='name the linears in the recipe: layers = ["..."]',
        )
    return found


def match_names(names: Iterable[str], patterns: Sequence[str], kind: str) -> list[str]:
    """Return the names that match any pattern, in their own order.

    Raises:
        UsageError: a pattern matches none; the message has the nearest names.
    """
    known = list(names)
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in known):
            raise UsageError(
                f"no {kind} of the model matches {pattern!r}", where="layers", cure=suggest_names(pattern, known)
            )
    return [name for name in known if any(_matches(name, pattern) for pattern in patterns)]


def suggest_names(word: str, known: Sequence[str]) -> str:
    """Return what to say where ``word`` is none of ``known``: the nearest ones."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.3) or known[:3]
    return f"the nearest are {', '.join(near)}" if near else "the model has none"


def find_stacks(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the lists of like layers, by name: the outermost ModuleLists whose members all have one class."""
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) and not inside:
            found[name] = module
    return found


def find_stack(model: nn.Module) -> str:
    """Return the path of the model's encoder layers, its longest list of like modules.

    Raises:
        UnsupportedModel: it has none.
    """
    stacks = find_stacks(model)
    if not stacks:
        raise UnsupportedModel(
            "no stack of layers was found in the model",
            where=type(model).__name__,
            cure="leave out drop-layers: this architecture has no list of like layers",
        )
    return max(stacks, key=lambda name: len(stacks[name]))


def list_layers(model: nn.Module) -> list[nn.Module]:
    """Return the encoder layers in order: modules with ``attention.self``, ``intermediate.dense`` and ``output``.

    Raises:
        ValueError: there are none, so the model is not laid out like BERT.
    """
    layers: list[Any] = list(model.modules())
    found = [
        module
        for module in layers
        if hasattr(module, "intermediate") and hasattr(getattr(module, "attention", None), "self")
    ]
    if not found:
        raise ValueError("the model has no encoder layers laid out like BERT's")
    return found


def _matches(name: str, pattern: str) -> bool:
    """Match part by part, so that ``*`` is one part; what stands before and behind may be left out."""
    parts, wanted = name.split("."), pattern.split(".")
    return any(
        all(fnmatchcase(part, want) for part, want in zip(parts[start:], wanted, strict=False))
        for start in range(len(parts) - len(wanted) + 1)
    )
