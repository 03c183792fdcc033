"""An open model with what belongs to it: tokenizer, task and class names.

In: an open session and the folder of its files. Out: a :class:`Subject`. Must not import a runtime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import CorruptArtifact
from runtimes.protocol import Session

#: Tokens kept of a text where nothing says another number.
DEFAULT_MAX_LENGTH = 128
_CONFIG = "config.json"
_CHANGED = "open it again; where that does not help, install or export it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An open model.

    Attributes:
        session: Runs it.
        task: What it does, where that is known.
        tokenizer: The file, if there is one.
        tokenizer_bytes: What was in it when its hash was checked; None where it is not listed anywhere.
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
    tokenizer_bytes: bytes | None = None


def make_subject(
    session: Session,
    task: str | None,
    directory: Path,
    *,
    files: Mapping[str, str] | None = None,
    labels: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    max_length: int = DEFAULT_MAX_LENGTH,
) -> Subject:
    """Return the subject of a session, with the tokenizer and, unless they are given, the class names in ``directory``.

    Args:
        session: Runs it.
        task: What it does.
        directory: Where its files lie.
        files: The sha256 of those that belong to it, by name: these are read now, so that what is used is what is
            listed, and no other is looked at. None takes what lies there.
        labels: The names of the classes.
        notes: What is worth knowing of how it runs.
        max_length: Tokens kept of a text.

    Raises:
        CorruptArtifact: the class names cannot be read, or a file is not the one that is listed.
    """
    tokenizer, config = directory / "tokenizer.json", directory / _CONFIG
    if files is None:
        found, labels = tokenizer.is_file(), labels or read_labels(directory)
        held = None
    else:
        held = read_listed(tokenizer, files)
        found, labels = held is not None, labels or _parse_labels(read_listed(config, files), config)
    return Subject(
        session=session,
        task=task,
        tokenizer=tokenizer if found else None,
        tokenizer_bytes=held,
        labels=labels,
        notes=notes,
        max_length=max_length,
    )


def read_labels(directory: Path) -> tuple[str, ...]:
    """Return the class names by index from ``config.json``'s ``id2label``; empty where there is none.

    Raises:
        CorruptArtifact: the file is there and cannot be read.
    """
    path = directory / _CONFIG
    return _parse_labels(path.read_bytes() if path.is_file() else None, path)


def _parse_labels(data: bytes | None, path: Path) -> tuple[str, ...]:
    if data is None:
        return ()
    try:
        names: Mapping[str, str] = json.loads(data.decode("utf-8")).get("id2label") or {}
        return tuple(names[key] for key in sorted(names, key=int))
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise CorruptArtifact("the class names cannot be read", where=f"{path}:id2label", cure="mend it") from error


def read_listed(path: Path, files: Mapping[str, str]) -> bytes | None:
    """Return what is in a file, by the sha256 that is listed under its name; None where none is.

    Raises:
        CorruptArtifact: it cannot be read, or is not the one that is listed.
    """
    if path.name not in files:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptArtifact("a listed file cannot be read", where=str(path), cure=_CHANGED) from error
    if hashlib.sha256(data).hexdigest() != files[path.name]:
        raise CorruptArtifact("the file is not the one that is listed", where=str(path), cure=_CHANGED)
    return data
