"""Whatever a user may want to evaluate, as an artifact that can be opened and timed: a checkpoint is traced for that.

In: the user's words. Out: a path. Must not import: torch at module level (a checkpoint is traced, which imports it).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.artifact import MANIFEST_NAME
from runtimes.serving.bundle import is_bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """An exported directory, a bundle or a model file, and its task where it is known."""

    reference: str
    task: str | None


@contextmanager
def open_artifact(reference: str, *, task: str | None = None) -> Iterator[Located]:
    """Give back an exported directory, a bundle or a model file as it is; trace anything else, once, while this runs.

    Raises:
        UsageError: there is no such model.
        UnsupportedModel: it is no model, or cannot be traced.
    """
    path = Path(reference)
    if (path / MANIFEST_NAME).is_file() or path.suffix in {".plan", ".onnx"} or is_bundle(path):
        yield Located(reference=reference, task=task)
        return
    from exporter.source import open_source
    from exporter.tracing.trace import trace

    with tempfile.TemporaryDirectory(prefix="stepdown.") as scratch:
        traced = trace(open_source(reference, task=task), Path(scratch))
        yield Located(reference=str(traced.artifact.path), task=traced.task)
