"""What a chat template of a bundle may be made of: what chat templates are written with. Needs ``jinja2``.

In: the source of a template. Out: why it is refused, or nothing. The sandbox that it runs in
(:mod:`runtimes.generation.template_sandbox`) is the other fence; this one leaves a hole in that nothing to be reached
by: it reads the template before any of it runs. Names that are made while it runs are not known here; what they may
reach is the sandbox's to say. Must not import a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runtimes.generation.template_sandbox import make_environment

if TYPE_CHECKING:
    from jinja2.nodes import Expr, Filter, Node

#: The longest in use (Llama 3, Qwen 3, with their tools) have some ten thousand characters.
MAX_SOURCE = 256 << 10

_NODES = frozenset(
    {"Template", "Output", "TemplateData", "Name", "NSRef", "Const", "List", "Dict", "Pair", "Tuple", "Getattr"}
    | {"Getitem", "Slice", "Filter", "Test", "Call", "Keyword", "Compare", "Operand", "And", "Or", "Not", "Neg", "Pos"}
    | {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow", "Concat", "CondExpr", "If", "For", "Assign", "AssignBlock"}
    | {"Macro", "CallBlock", "FilterBlock", "With", "Break", "Continue", "ExprStmt"}
)
# Without `attr`, `format` and `xmlattr`, which reach or write what is not there to be read.
_FILTERS = frozenset(
    {"abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int"}
    | {"items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace"}
    | {"reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim"}
    | {"truncate", "unique", "upper", "wordcount"}
)
_TESTS = frozenset(
    {"boolean", "defined", "divisibleby", "even", "false", "float", "in", "integer", "iterable", "lower", "mapping"}
    | {"none", "number", "odd", "sameas", "sequence", "string", "true", "undefined", "upper"}
    | {"!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "le", "lessthan", "lt", "ne"}
)
_METHODS = frozenset({"format", "format_map"})
# Filters that go by an attribute, and the place of its name; `map` takes it by its keyword alone.
_ATTRIBUTE_AT = {
    "selectattr": 0, "rejectattr": 0, "groupby": 0, "sum": 0, "join": 1, "unique": 1, "min": 1, "max": 1, "sort": 2,
}  # fmt: skip
# Filters that go by another's name, or by a test's.
_FILTER_AT = {"map": 0}
_TEST_AT = {"select": 0, "reject": 0, "selectattr": 1, "rejectattr": 1}
_BY_NAME = _ATTRIBUTE_AT.keys() | _FILTER_AT.keys() | _TEST_AT.keys()
# What `map` applies goes by no further name.
_MAPPED = _FILTERS - _BY_NAME


def find_fault(source: str) -> str | None:
    """Return what a template is made of that none in a bundle may be; None where there is nothing.

    Raises:
        jinja2.TemplateError: it is no template.
        MissingDependency: see :func:`~runtimes.generation.template_sandbox.make_environment`.
    """
    if len(source) > MAX_SOURCE:
        return f"it has more than {MAX_SOURCE:,} characters"

    left: list[Node] = [make_environment().parse(source)]
    while left:
        node = left.pop()
        fault = _judge(node)
        if fault is not None:
            return f"{fault} is nothing that chat templates need, in line {node.lineno}"
        left.extend(node.iter_child_nodes())
    return None


def _judge(node: Node) -> str | None:
    """Return what is wrong with one node."""
    from jinja2 import nodes

    kind = type(node).__name__
    if kind not in _NODES:
        return f"'{kind}'"
    match node:
        case nodes.Filter():
            return _judge_filter(node)
        case nodes.Test() if node.name not in _TESTS:
            return f"the test '{node.name[:40]}'"
        case nodes.Getattr():
            return _judge_name(node.attr)
        case nodes.Getitem():
            return _judge_key(node.arg)
        case nodes.Const() if isinstance(node.value, str) and node.value.startswith("__"):
            return f"'{node.value[:40]}'"
    return None


def _judge_filter(node: Filter) -> str | None:
    """Return what is wrong with a filter, and with what it is told to go by: that is a text, so it has to be here."""
    if node.name not in _FILTERS:
        return f"the filter '{node.name[:40]}'"
    if node.name in _BY_NAME and (node.dyn_args is not None or node.dyn_kwargs is not None):
        return f"'{node.name}' with '*'"
    for places, allowed, what in ((_FILTER_AT, _MAPPED, "filter"), (_TEST_AT, _TESTS, "test")):
        for named in _find_argument(node, places):
            if _read(named) not in allowed:
                return f"'{node.name}' by the {what} {str(_read(named))[:40]!r}"
    keywords = (pair.value for pair in node.kwargs if pair.key == "attribute")
    faults = map(_judge_attribute, (*_find_argument(node, _ATTRIBUTE_AT), *keywords))
    return next(filter(None, faults), None)


def _find_argument(node: Filter, places: Mapping[str, int]) -> list[Expr]:
    """Return the argument of a filter at its place; nothing where it has none."""
    place = places.get(node.name, len(node.args))
    return node.args[place : place + 1]


def _judge_attribute(attribute: Expr) -> str | None:
    """Return what is wrong with the attribute that a filter goes by: ``a.b`` leads from one to the next."""
    told = _read(attribute)
    if not isinstance(told, str | int):
        return "an attribute that is put together as it runs"
    return next(filter(None, map(_judge_name, re.split("[.,]", str(told)))), None)


def _judge_key(key: Node) -> str | None:
    """Return what is wrong with what stands in brackets: a text of pieces could be any name."""
    from jinja2 import nodes

    told = _read(key)
    if isinstance(told, str):
        return _judge_name(told)
    for part in (key, *key.find_all((nodes.Concat, nodes.Add, nodes.Mod, nodes.Mul))):
        match part:
            case nodes.Concat():
                return "a key that is put together of texts"
            case nodes.Add() | nodes.Mod() | nodes.Mul() if any(
                isinstance(_read(side), str) for side in (part.left, part.right)
            ):
                return "a key that is put together of texts"
    return None


def _judge_name(name: str) -> str | None:
    return f"'{name[:40]}'" if name.startswith("__") or name in _METHODS else None


def _read(node: Node) -> object:
    """Return the value of a constant; None for anything else."""
    from jinja2 import nodes

    return node.value if isinstance(node, nodes.Const) else None
