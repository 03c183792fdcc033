"""A conversation to the text that a model was taught to answer. Needs ``jinja2``; must not import transformers.

In: the chat template that lies beside a tokenizer, and messages. Out: the prompt, as transformers writes it: templates
come with models, so they run in jinja2's sandbox, which lets them change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runtimes.errors import CorruptArtifact, MissingDependency, UsageError

if TYPE_CHECKING:
    from jinja2 import Template

#: One turn: ``role`` (system, user, assistant) and ``content``.
Message = Mapping[str, str]

_TEMPLATE, _SETTINGS = "chat_template.jinja", "tokenizer_config.json"
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_CURE = "fetch or export the model with its tokenizer again"


class ChatTemplate:
    """The chat template of a model."""

    def __init__(self, template: Template, tokens: Mapping[str, str], where: str) -> None:
        self._template, self._tokens, self._where = template, tokens, where

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt that asks for the next message.

        Raises:
            UsageError: there is no message, one has no role or content, or the template refuses them.
        """
        if not messages:
            raise UsageError("there is no message", where="messages", cure="give at least one")
        for message in messages:
            if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
                raise UsageError("a message lacks its role or its content", where="messages", cure="give both, as text")
        try:
            return self._template.render(
                messages=[dict(message) for message in messages], add_generation_prompt=True, **self._tokens
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise UsageError(
                f"the chat template refuses these messages: {error}",
                where=self._where,
                cure="give the roles that it knows, in its order, or a plain prompt",
            ) from error


def read_chat_template(directory: Path) -> ChatTemplate | None:
    """Return the chat template of a folder; None where the model has none.

    ``chat_template.jinja`` wins over ``tokenizer_config.json``, as in transformers; of several there, ``default``.

    Raises:
        CorruptArtifact: it is there and cannot be read.
        MissingDependency: the ``jinja2`` package is missing.
    """
    settings = _read_settings(directory / _SETTINGS)
    source, path = _find_source(directory, settings)
    if source is None:
        return None
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependency("jinja2 is not installed", cure='pip install "stepdown[generate]"') from error
    # As transformers sets it up: templates are written for that.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _write_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _tell_time}
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise CorruptArtifact(f"the chat template cannot be read: {error}", where=str(path), cure=_CURE) from error
    return ChatTemplate(template, _name_tokens(settings), str(path))


def _find_source(directory: Path, settings: Mapping[str, Any]) -> tuple[str | None, Path]:
    path = directory / _TEMPLATE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), path
        except UnicodeDecodeError as error:
            raise CorruptArtifact("the chat template is no text", where=str(path), cure=_CURE) from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return (found if isinstance(found, str) else None), directory / _SETTINGS


def _read_settings(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptArtifact("the tokenizer's settings cannot be read", where=str(path), cure=_CURE) from error
    return found if isinstance(found, dict) else {}


def _name_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that templates name; each is a text, or an object with one."""
    found = {name: settings.get(name) for name in _TOKENS}
    told = {name: value.get("content") if isinstance(value, dict) else value for name, value in found.items()}
    return {name: value for name, value in told.items() if isinstance(value, str)}


def _write_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # jinja2's own filter writes for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _tell_time(layout: str) -> str:
    return datetime.now().strftime(layout)
