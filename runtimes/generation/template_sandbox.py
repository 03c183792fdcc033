"""The sandbox that chat templates run in, and what a template of a bundle may be made of. Needs ``jinja2``.

In: the source of a template. Out: an environment that runs it, or why it is refused. A template comes with a model, so
it is a program of people whom nobody may know. Two fences stand around it: jinja2's sandbox, which gives it the
messages to read, no file, no module and no private attribute; and, for what comes in a bundle, a list of what templates
are written with, so that a hole in the sandbox has nothing to be reached by. Neither bounds time and memory: a template
may count for ever, as a graph may. Must not import a runtime.
"""

from __future__ import annotations

import json
from collections.abc import Sized
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from runtimes.errors import MissingDependency

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.nodes import Node
    from jinja2.runtime import Context

#: The longest in use (Llama 3, Qwen 3, with their tools) have some ten thousand characters.
MAX_SOURCE = 256 << 10
#: Of a rendered prompt, and of what a product makes; a context of a million tokens takes a quarter of that.
MAX_TEXT = 16 << 20
_MAX_EXPONENT = 64
# An indentation of JSON is a space or a few.
_MAX_INDENT = 100
# The first whose sandbox holds `str.format` behind `attr` and `map` (CVE-2024-56326, CVE-2025-27516).
_OLDEST = (3, 1, 6)
_CURE = 'pip install "stepdown[generate]"'

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
_METHODS = frozenset({"format", "format_map"})


def make_environment() -> Environment:
    """Return the environment that transformers sets up, which templates are written for, with bounds.

    Raises:
        MissingDependency: jinja2 is missing, or its sandbox is known to leak.
    """
    try:
        from jinja2.exceptions import SecurityError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependency("jinja2 is not installed", cure=_CURE) from error
    _require_version()

    class Sandbox(ImmutableSandboxedEnvironment):
        """jinja2's, where a product is no more than a prompt has room for."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
            if _is_too_large(operator, left, right):
                raise SecurityError(f"'{operator}' would make too much")
            return super().call_binop(context, operator, left, right)

    # Not optimised: nothing of a template is worked out before it runs.
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False)
    environment.filters["tojson"] = _write_json
    # It makes as many words as it is asked for.
    del environment.globals["lipsum"]
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _tell_time}
    return environment


def find_fault(source: str) -> str | None:
    """Return what a template is made of that none in a bundle may be; None where there is nothing.

    Raises:
        jinja2.TemplateError: it is no template.
        MissingDependency: see :func:`make_environment`.
    """
    if len(source) > MAX_SOURCE:
        return f"it has more than {MAX_SOURCE:,} characters"

    left: list[Node] = [make_environment().parse(source)]
    while left:
        node = left.pop()
        fault = _judge(node)
        if fault is not None:
            return f"{fault} in line {node.lineno}"
        left.extend(node.iter_child_nodes())
    return None


def _judge(node: Node) -> str | None:
    """Return what is wrong with one node."""
    from jinja2 import nodes

    kind = type(node).__name__
    if kind not in _NODES:
        return f"'{kind}' is nothing that chat templates need,"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter '{node.name[:40]}' is nothing that chat templates need,"
    is_attribute = isinstance(node, nodes.Getattr)
    # What `map` and `sort` go by, and what stands in brackets, is a text.
    name = node.attr if isinstance(node, nodes.Getattr) else getattr(node, "value", None)
    if isinstance(name, str) and (name.startswith("__") or (is_attribute and name in _METHODS)):
        return f"'{name[:40]}' is nothing that chat templates need,"
    return None


def _is_too_large(operator: str, left: object, right: object) -> bool:
    if operator == "**":
        return not isinstance(right, int | float) or abs(right) > _MAX_EXPONENT
    lengths = [len(value) for value in (left, right) if isinstance(value, Sized)]
    times = [value for value in (left, right) if isinstance(value, int)]
    return bool(lengths and times) and lengths[0] * times[0] > MAX_TEXT


@cache
def _require_version() -> None:
    from importlib.metadata import version

    found = version("jinja2")
    if tuple(int(part) for part in found.split(".")[:3] if part.isdigit()) < _OLDEST:
        what = f"the sandbox of jinja2 {found} is known to leak, that of {'.'.join(map(str, _OLDEST))} is not"
        raise MissingDependency(what, where="jinja2", cure=_CURE)


def _write_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # jinja2's own filter writes for HTML.
    if indent is not None and indent > _MAX_INDENT:
        raise ValueError(f"an indentation of {indent}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _tell_time(layout: str) -> str:
    return datetime.now().strftime(layout)
