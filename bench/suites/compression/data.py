"""The two tasks of the compression suite: real texts, split so that nobody sees what judges.

In: :mod:`bench.assets`. Out: JSON-lines files. The test texts are those of the asset; one in ten of the others, by its
hash, is held out to measure on while training and choosing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import assets
from runtimes.atomic import write_text

_HELD_OUT_OF_256 = 26

MOVIES, REUTERS = "movies", "reuters"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """Four JSON-lines files: to learn from, to choose by, to judge by, and further texts without labels."""

    name: str
    train: Path
    held_out: Path
    test: Path
    unlabelled: Path

    def read_test_texts(self) -> list[str]:
        """Return the texts that judge, in order."""
        return [json.loads(line)["text"] for line in _read_lines(self.test)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    train: Path
    test: Path
    unlabelled: Sequence[str]


def prepare_task(name: str, folder: Path, *, limit: int | None = None) -> TaskData:
    """Write the files of a task into ``folder``, at most ``limit`` lines each.

    Raises:
        MissingDependency: the asset cannot be fetched.
        CorruptArtifact: what was fetched is not what is pinned.
    """
    source = SOURCES[name]()
    train, held_out = split_lines(_read_lines(source.train))
    lines = {"train": train, "held_out": held_out, "test": _read_lines(source.test), "unlabelled": source.unlabelled}
    folder.mkdir(parents=True, exist_ok=True)
    for key, rows in lines.items():
        write_text(folder / f"{key}.jsonl", "".join(f"{row}\n" for row in rows[:limit]))
    return TaskData(name=name, **{key: folder / f"{key}.jsonl" for key in lines})


def split_lines(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return those to learn from and those held out: the same everywhere, in any order of the lines."""
    parts: tuple[list[str], list[str]] = ([], [])
    for line in lines:
        first = hashlib.sha256(json.loads(line)["text"].encode()).digest()[1]
        parts[first < _HELD_OUT_OF_256].append(line)
    return parts


def _read_movies() -> _Source:
    files = assets.movie_sentences()
    return _Source(train=files.train, test=files.test, unlabelled=_read_lines(files.unlabelled))


def _read_reuters() -> _Source:
    """Read Reuters; beside it there are no further texts of its kind, but 300 of other news."""
    files = assets.reuters_r8()
    news = _read_lines(assets.lee().background)
    return _Source(train=files.train, test=files.test, unlabelled=[json.dumps({"text": text}) for text in news])


SOURCES: Mapping[str, Callable[[], _Source]] = {MOVIES: _read_movies, REUTERS: _read_reuters}


def _read_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
