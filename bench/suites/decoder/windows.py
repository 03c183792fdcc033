"""Held-out text as windows of tokens, as language models are judged: paragraphs one after the other, cut into windows.

In: a file with a paragraph a line, and an open export. Out: an ``.npz`` file that ``stepdown eval`` reads.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtimes.atomic import make_directory, write_bytes
from runtimes.errors import DataError
from runtimes.generation.generator import Generator

# Tokens of a window, where the model takes so many.
_LENGTH = 512
# What a position is labelled with that is not judged (exporter/judging/perplexity.py).
_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The file, the hash of its bytes, and how many windows of how many tokens it holds."""

    path: Path
    sha256: str
    count: int
    length: int

    def describe(self) -> str:
        """Return what was judged, in words."""
        return (
            f"{self.count} windows of {self.length} tokens, nothing before each; the token that ends a paragraph is "
            "read and not judged"
        )


def write_windows(texts: Path, generator: Generator, folder: Path) -> Windows:
    """Write the windows of a text into ``folder``, under a name of their own.

    Behind each paragraph stands the model's first stop token. What is left at the end and fills no window is left out.

    Raises:
        DataError: the text fills none.
    """
    length, stop = min(_LENGTH, generator.layout.context), generator.layout.stop_ids[0]
    paragraphs = texts.read_text(encoding="utf-8").splitlines()
    parts = [np.array([*generator.encode(text), stop], np.int64) for text in paragraphs if text]
    ids = cut_windows(np.concatenate(parts) if parts else np.zeros(0, np.int64), length)
    if not len(ids):
        raise DataError(f"the text fills no window of {length} tokens", where=str(texts), cure="give a longer text")
    buffer = io.BytesIO()
    np.savez(buffer, input_ids=ids, attention_mask=np.ones_like(ids), labels=label_next(ids, stop))
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    make_directory(folder)
    path = folder / f"{texts.stem}-{sha256[:8]}.npz"
    if not path.is_file():
        write_bytes(path, buffer.getvalue())
    return Windows(path=path, sha256=sha256, count=len(ids), length=length)


def cut_windows(ids: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return tokens [all] as full windows [windows, length], one after the other."""
    count = len(ids) // length
    return ids[: count * length].reshape(count, length)


def label_next(ids: NDArray[np.int64], stop: int) -> NDArray[np.int64]:
    """Return the label of each position of windows: the token behind it in its window, where that ends no paragraph."""
    labels = np.full_like(ids, _IGNORED)
    labels[:, :-1] = np.where(ids[:, 1:] == stop, _IGNORED, ids[:, 1:])
    return labels
