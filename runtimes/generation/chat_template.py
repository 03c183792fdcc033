"""A conversation to the text that a model was taught to answer. Needs ``jinja2``; must not import transformers.

In: the chat template that lies beside a tokenizer, and messages. Out: the prompt, as transformers writes it. Templates
come with models, so they run in a sandbox (:mod:`runtimes.generation.template_sandbox`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtimes.errors import CorruptArtifact, MissingDependency, UsageError
from runtimes.generation.template_fence import find_fault
from runtimes.generation.template_sandbox import MAX_TEXT, make_environment
from runtimes.generation.text_files import SETTINGS, TEMPLATE, TextFiles

if TYPE_CHECKING:
    from jinja2 import Template

#: One turn: ``role`` (system, user, assistant) and ``content``.
Message = Mapping[str, str]

_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_CURE = "fetch or export the model with its tokenizer again"


class ChatTemplate:
    """The chat template of a model."""

    def __init__(self, template: Template, tokens: Mapping[str, str], where: str) -> None:
        self._template, self._tokens, self._where = template, tokens, where

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt that asks for the next message.

        Raises:
            UsageError: there is no message, one has no role or content, or the template refuses them or writes more
                than any model reads.
        """
        if not messages:
            raise UsageError("there is no message", where="messages", cure="give at least one")
        for message in messages:
            if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
                raise UsageError("a message lacks its role or its content", where="messages", cure="give both, as text")
        try:
            return self._write(messages)
        except Exception as error:  # a template is a program: it may raise anything
            raise UsageError(
                f"the chat template refuses these messages: {error}",
                where=self._where,
                cure="give the roles that it knows, in its order, or a plain prompt",
            ) from error

    def _write(self, messages: Sequence[Message]) -> str:
        told = [dict(message) for message in messages]
        pieces, size = [], 0
        for piece in self._template.generate(messages=told, add_generation_prompt=True, **self._tokens):
            size += len(piece)
            if size > MAX_TEXT:
                raise ValueError(f"it writes more than {MAX_TEXT:,} characters")
            pieces.append(piece)
        return "".join(pieces)


def read_chat_template(texts: TextFiles) -> ChatTemplate | None:
    """Return the chat template of a model; None where it has none.

    ``chat_template.jinja`` wins over ``tokenizer_config.json``, as in transformers; of several there, ``default``.

    Raises:
        CorruptArtifact: it is there and cannot be read.
        MissingDependency: the ``jinja2`` package is missing, or its sandbox is known to leak.
    """
    settings = _read_settings(texts)
    source, name = _find_source(texts, settings)
    if source is None:
        return None
    where = texts.locate(name)
    with _reading(where):
        template = make_environment().from_string(source)
    return ChatTemplate(template, _name_tokens(settings), where)


def check_chat_template(texts: TextFiles) -> None:
    """Refuse a chat template that nobody vouches for where it is made of more than chat templates are.

    Raises:
        CorruptArtifact: it is, or it cannot be read.
        MissingDependency: see :func:`read_chat_template`.
    """
    source, name = _find_source(texts, _read_settings(texts))
    if source is None:
        return
    with _reading(texts.locate(name)):
        fault = find_fault(source)
    if fault is not None:
        raise CorruptArtifact(
            f"the chat template is refused: {fault}",
            where=texts.locate(name),
            cure="write it without that (docs/bundle.md lists what one may be made of), and pack again",
        )


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn what a template raises that is none into an error of ours; jinja2 compiles it to Python."""
    try:
        yield
    except MissingDependency:
        raise
    except Exception as error:  # of jinja2, and of Python's own compiler
        raise CorruptArtifact(f"the chat template cannot be read: {error}", where=where, cure=_CURE) from error


def _find_source(texts: TextFiles, settings: Mapping[str, Any]) -> tuple[str | None, str]:
    if TEMPLATE in texts.contents:
        try:
            return texts.contents[TEMPLATE].decode("utf-8"), TEMPLATE
        except UnicodeDecodeError as error:
            raise CorruptArtifact("the chat template is no text", where=texts.locate(TEMPLATE), cure=_CURE) from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = [one for one in found if isinstance(one, dict)]
        found = next((one.get("template") for one in named if one.get("name") == "default"), None)
    return (found if isinstance(found, str) else None), SETTINGS


def _read_settings(texts: TextFiles) -> Mapping[str, Any]:
    if SETTINGS not in texts.contents:
        return {}
    try:
        found = json.loads(texts.contents[SETTINGS].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        where = texts.locate(SETTINGS)
        raise CorruptArtifact("the tokenizer's settings cannot be read", where=where, cure=_CURE) from error
    return found if isinstance(found, dict) else {}


def _name_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that templates name; each is a text, or an object with one."""
    found = {name: settings.get(name) for name in _TOKENS}
    told = {name: value.get("content") if isinstance(value, dict) else value for name, value in found.items()}
    return {name: value for name, value in told.items() if isinstance(value, str)}
