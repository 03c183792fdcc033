"""The sandbox that chat templates run in. Needs ``jinja2``.

Out: an environment that runs them. A template comes with a model, so it is a program of people whom nobody may know.
Two fences stand around it: jinja2's sandbox, which gives it the messages to read, no file, no module and no private
attribute; and, for what comes in a bundle, a list of what it may be made of, :mod:`runtimes.generation.template_fence`.
Neither bounds time and memory: a template may count for ever, as a graph may. Must not import a runtime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sized
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from runtimes.errors import MissingDependency

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

#: Of a rendered prompt, and of what a product makes; a context of a million tokens takes a quarter of that.
MAX_TEXT = 16 << 20
_MAX_EXPONENT = 64
# An indentation of JSON is a space or a few.
_MAX_INDENT = 100
# The first whose sandbox holds `str.format` behind `attr` and `map` (CVE-2024-56326, CVE-2025-27516).
_OLDEST = (3, 1, 6)
_CURE = 'pip install "stepdown[generate]"'

# Methods of texts that make one as wide as they are told.
_WIDENING = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
# The width and precision of a conversion, as `%` reads it; a star takes them from what is written.
_SIZES = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?")


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
        """jinja2's, where what one operation makes is no more than a prompt has room for."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
            if _is_too_large(operator, left, right):
                raise SecurityError(f"'{operator}' would make too much")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if _is_too_wide(obj, (*args, *kwargs.values())):
                raise SecurityError(f"'{obj.__name__}' would make too much")
            return super().call(context, obj, *args, **kwargs)

    # Not optimised: nothing of a template is worked out before it runs.
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False)
    environment.filters["tojson"] = _write_json
    # It makes as many words as it is asked for.
    del environment.globals["lipsum"]
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _tell_time}
    return environment


def _is_too_large(operator: str, left: object, right: object) -> bool:
    if operator == "**":
        return not isinstance(right, int | float) or abs(right) > _MAX_EXPONENT
    if operator == "%":
        return isinstance(left, str) and _measure_format(left) > MAX_TEXT
    lengths = [len(value) for value in (left, right) if isinstance(value, Sized)]
    times = [value for value in (left, right) if isinstance(value, int)]
    return bool(lengths and times) and lengths[0] * times[0] > MAX_TEXT


def _measure_format(text: str) -> float:
    """Return the characters that the widths in a format ask for, without what is written into it."""
    sizes = [size for found in _SIZES.findall(text) for size in found if size]
    return sum(float("inf") if size == "*" else float(size) for size in sizes)


def _is_too_wide(function: object, arguments: Iterable[object]) -> bool:
    text = getattr(function, "__self__", None)
    if not isinstance(text, str) or getattr(function, "__name__", None) not in _WIDENING:
        return False
    # Each tab becomes as many spaces.
    return any(isinstance(width, int) and width * max(text.count("\t"), 1) > MAX_TEXT for width in arguments)


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
