"""Reads the exported directories that a bundle is made of, each verified against its manifest.

In: directories. Out: :class:`Export`. Must not import torch, nor a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.artifact import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import CorruptArtifact, UsageError
from runtimes.generation.layout import TASK
from runtimes.generation.text_files import TEXT_NAMES
from runtimes.serving.exported import verify_files
from runtimes.serving.subject import read_labels

# Texts that belong to the model's licence; who exported it lays them beside it, so no manifest names them.
_LEGAL = re.compile(r"(?:LICEN[SC]E|NOTICE|COPYING)(?:\.txt|\.md)?", flags=re.IGNORECASE)
# What makes two exports two forms of one model: a text is the same tokens and a class the same name.
_SAME = ("tokenizer.json",)
ONNXRUNTIME = "onnxruntime"
# What `stepdown run` keeps of a text unless told otherwise.
_MAX_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One exported directory.

    Attributes:
        directory: Where it lies.
        manifest: What it says of itself.
        labels: Names of the classes by index.
        top: The files beside the artifacts' folders, by name.
        ignored: Files that neither the manifest names nor a licence is.
    """

    directory: Path
    manifest: Manifest
    labels: tuple[str, ...]
    top: Mapping[str, Path]
    ignored: tuple[str, ...]

    @property
    def task(self) -> str | None:
        """What the model does, where that is known."""
        task: str | None = self.manifest.source.get("task")
        return task

    @property
    def max_length(self) -> int:
        """How many tokens the export was calibrated and judged at, no more than the model takes."""
        told = (self.manifest.recipe.get("max_length"), self.manifest.source.get("max_length"))
        lengths = [length for length in told if isinstance(length, int) and length > 0]
        return min(lengths, default=_MAX_LENGTH)

    @property
    def generates(self) -> bool:
        """Whether the model writes text, token by token."""
        return self.task == TASK

    def find_entry(self, target: str) -> Mapping[str, Any]:
        """Return what the manifest says of one artifact.

        Raises:
            CorruptArtifact: it says nothing, or lacks what every artifact has.
        """
        where = f"{self.directory / MANIFEST_NAME}:artifacts.{target}"
        entry = self.manifest.artifacts.get(target)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
            raise CorruptArtifact("the manifest describes no such artifact", where=where, cure="export it again")
        if not any(record.path == entry["path"] for record in self.manifest.files):
            raise CorruptArtifact("the artifact is not among the manifest's files", where=where, cure="export it again")
        return entry

    def list_beside(self, model: Path) -> tuple[str, ...]:
        """Return the files of the manifest in the folder of ``model``, by their paths from there."""
        folder = model.parent.relative_to(self.directory).as_posix() + "/"
        paths = (record.path for record in self.manifest.files)
        return tuple(path.removeprefix(folder) for path in paths if path.startswith(folder))


def read_exports(directories: Sequence[Path]) -> tuple[Export, ...]:
    """Read and verify every directory, and that they hold forms of one model.

    Raises:
        UsageError: one is no exported directory, or two are of different models.
        CorruptArtifact: a file is missing, or is not the one that was exported.
    """
    exports = tuple(map(_read_export, directories))
    first = exports[0]
    for other in exports[1:]:
        _require_alike(first, other)
    return exports


def check_lengths(exports: Sequence[Export]) -> None:
    """Check that one length of texts is right for all exports: a bundle has one for all its variants.

    Raises:
        UsageError: two were judged at different lengths.
    """
    first = exports[0]
    for other in exports[1:]:
        if other.max_length != first.max_length:
            raise UsageError(
                f"it was judged at {other.max_length} tokens of a text, {first.directory} at {first.max_length}: "
                "variants of a bundle cut texts alike",
                where=str(other.directory),
                cure="export both with one --max-length, or pack with --max-length "
                f"{min(first.max_length, other.max_length)}",
            )


def _read_export(directory: Path) -> Export:
    if not (directory / MANIFEST_NAME).is_file():
        raise UsageError(
            "not an exported directory: it has no manifest", where=str(directory), cure="give what `export -o` wrote"
        )
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    named = {record.path for record in manifest.files}
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    legal = {name for name in found if _LEGAL.fullmatch(name)}
    return Export(
        directory=directory,
        manifest=manifest,
        labels=tuple(manifest.source.get("labels") or read_labels(directory)),
        top=_list_top(manifest, {name: found[name] for name in sorted(named | legal)}),
        ignored=tuple(sorted(found.keys() - named - legal - {MANIFEST_NAME})),
    )


def _list_top(manifest: Manifest, found: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files at the top; of a model that generates, those that make tokens of texts lie by its graph."""
    top = {name: path for name, path in found.items() if "/" not in name}
    if manifest.source.get("task") != TASK:
        return top
    beside = {name: found[path] for name in TEXT_NAMES if (path := f"{ONNXRUNTIME}/{name}") in found}
    return {name: path for name, path in top.items() if name not in TEXT_NAMES} | beside


def _require_alike(first: Export, other: Export) -> None:
    """Refuse two exports that answer different questions."""
    pairs: dict[str, tuple[object, object]] = {
        "task": (first.task, other.task),
        "classes": (first.labels, other.labels),
        **{name: (_read(first, name), _read(other, name)) for name in (TEXT_NAMES if first.generates else _SAME)},
    }
    for what, (left, right) in pairs.items():
        if left != right:
            raise UsageError(
                f"not the same model as {first.directory}: another {what}",
                where=str(other.directory),
                cure="put exports of one model into a bundle; pack others on their own",
            )


def _read(export: Export, name: str) -> bytes | None:
    return export.top[name].read_bytes() if name in export.top else None
