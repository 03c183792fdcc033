"""A source as a checkpoint of transformers, while something reads it.

In: a Source. Out: the same, or that of a directory it was unpacked into. torch is imported where a file is unpacked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from exporter.source import Source


@contextmanager
def as_checkpoint(source: Source, beside: Path) -> Iterator[Source]:
    """Yield ``source``; where it is a GGUF file, the directory that its model is unpacked into, below ``beside``.

    Raises:
        MissingDependency: a package that reads the file is not installed.
        UnsupportedModel: the file is damaged, or holds what cannot be taken over.
    """
    if source.kind != "gguf":
        yield source
        return
    with tempfile.TemporaryDirectory(dir=beside, prefix=".unpacked.") as folder:
        yield unpack(source, Path(folder))


def unpack(source: Source, folder: Path) -> Source:
    """Return ``source``; where it is a GGUF file, ``folder`` with its model, for as long as that stays.

    Raises as :func:`as_checkpoint`.
    """
    if source.kind != "gguf":
        return source
    from exporter.tracing.gguf import unpack_gguf

    return replace(source, kind="huggingface", path=unpack_gguf(source.path, folder))
