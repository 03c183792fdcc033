"""An open model with what belongs to it: tokenizer, task and class names.

In: an open session and the folder of its files. Out: a :class:`Subject`. Must not import a runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import CorruptArtifact
from runtimes.protocol import Session

#: Tokens kept of a text where nothing says another number.
DEFAULT_MAX_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An open model.

    Attributes:
        session: Runs it.
        task: What it does, where that is known.
        tokenizer: The file, if there is one.
        labels: The names of the classes by index; empty where the model has none.
        notes: What is worth knowing of how it runs here, one sentence each.
        max_length: Tokens kept of a text, unless more or fewer are asked for.
    """

    session: Session
    task: str | None
    tokenizer: Path | None
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    max_length: int = DEFAULT_MAX_LENGTH


def make_subject(
    session: Session,
    task: str | None,
    directory: Path,
    *,
    labels: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    max_length: int = DEFAULT_MAX_LENGTH,
) -> Subject:
    """Return the subject of a session, with the tokenizer and, unless they are given, the class names in ``directory``.

    Raises:
        CorruptArtifact: the class names cannot be read.
    """
    tokenizer = directory / "tokenizer.json"
    return Subject(
        session=session,
        task=task,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        labels=labels or read_labels(directory),
        notes=notes,
        max_length=max_length,
    )


def read_labels(directory: Path) -> tuple[str, ...]:
    """Return the class names by index from ``config.json``'s ``id2label``; empty where there is none.

    Raises:
        CorruptArtifact: the file is there and cannot be read.
    """
    path = directory / "config.json"
    if not path.is_file():
        return ()
    try:
        names: Mapping[str, str] = json.loads(path.read_text(encoding="utf-8")).get("id2label") or {}
        return tuple(names[key] for key in sorted(names, key=int))
    except (ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact("the class names cannot be read", where=f"{path}:id2label", cure="mend it") from error
