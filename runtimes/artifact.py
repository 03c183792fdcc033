"""What an artifact is: files with hashes, inputs and outputs, and the manifest that describes them.

Plain data that goes to JSON and back. Must not import a runtime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtimes.atomic import write_text
from runtimes.errors import CorruptArtifact

MANIFEST_NAME = "manifest.json"
MANIFEST_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: ``shape`` holds integers for fixed axes and names for dynamic ones.

    ``dtype`` is a numpy name (``float32``, ``int64``, ``int8``).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model file (``path``) of a given ``kind`` (``onnx``, ``plan``, ``pt2``) and what it takes and gives.

    ``sha256`` covers the file and, where weights lie beside it, those too (see :func:`hash_files`).
    ``files`` are all files of the artifact, ``path`` first.
    """

    path: Path
    kind: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: tuple[Path, ...] = ()

    def size_bytes(self) -> int:
        """Bytes on disk of every file of the artifact."""
        return sum(path.stat().st_size for path in self.files or (self.path,))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of an output directory: path relative to the manifest, size in bytes, sha256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an output directory holds and how it came to be.

    ``artifacts`` maps a target (``onnxruntime``) to the artifact's description, ``files`` names every file
    of the directory, ``measurements`` holds what was measured in the run that wrote it, and on what.
    """

    tool: Mapping[str, str]
    source: Mapping[str, Any]
    recipe: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    artifacts: Mapping[str, Mapping[str, Any]]
    files: tuple[FileRecord, ...]
    machine: Mapping[str, Any]
    measurements: Mapping[str, Any] = field(default_factory=dict)
    schema: int = MANIFEST_SCHEMA

    def list_files(self) -> dict[str, str]:
        """Return the sha256 of every file, by its path in the directory."""
        return {record.path: record.sha256 for record in self.files}


def hash_file(path: Path) -> str:
    """Return the hexadecimal sha256 of one file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def hash_files(paths: tuple[Path, ...]) -> str:
    """Return one sha256 for several files: that of the file itself for one, of the list of hashes for more."""
    if len(paths) == 1:
        return hash_file(paths[0])
    return hashlib.sha256("".join(hash_file(path) for path in paths).encode()).hexdigest()


def record_files(directory: Path) -> tuple[FileRecord, ...]:
    """Describe every file below ``directory`` except the manifest itself, in sorted order."""
    found = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST_NAME)
    return tuple(
        FileRecord(path=p.relative_to(directory).as_posix(), bytes=p.stat().st_size, sha256=hash_file(p)) for p in found
    )


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write ``manifest.json`` into ``directory`` atomically and return its path."""
    path = directory / MANIFEST_NAME
    write_text(path, json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")
    return path


def read_manifest(directory: Path) -> Manifest:
    """Read ``directory/manifest.json``.

    Raises:
        CorruptArtifact: it is missing, not JSON, of another schema, or lacks a part.
    """
    path = directory / MANIFEST_NAME
    cure = "export it again, or fetch the whole directory again"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = data["schema"]
    except FileNotFoundError as error:
        raise CorruptArtifact("there is no manifest", where=str(path), cure=cure) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, TypeError, KeyError) as error:
        raise CorruptArtifact("the manifest cannot be read", where=str(path), cure=cure) from error
    if schema != MANIFEST_SCHEMA:
        raise CorruptArtifact(
            f"manifest schema {schema}, this stepdown reads {MANIFEST_SCHEMA}",
            where=f"{path}:schema",
            cure="use the stepdown version that wrote it, or export again",
        )
    try:
        data["files"] = tuple(FileRecord(**record) for record in data["files"])
        data["steps"] = tuple(data["steps"])
        manifest = Manifest(**data)
        _check_types(manifest)
    except (TypeError, KeyError) as error:
        raise CorruptArtifact(f"the manifest lacks a part: {error}", where=str(path), cure=cure) from error
    return manifest


def _check_types(manifest: Manifest) -> None:
    """Raise TypeError where a part is of another type than its readers take."""
    names = ("tool", "source", "recipe", "artifacts", "machine", "measurements")
    parts = {name: getattr(manifest, name) for name in names}
    if isinstance(manifest.artifacts, Mapping):
        parts |= {f"artifacts.{target}": entry for target, entry in manifest.artifacts.items()}
    for name, part in parts.items():
        if not isinstance(part, Mapping):
            raise TypeError(f"{name} is no object")
    for record in manifest.files:
        if not isinstance(record.path, str) or not isinstance(record.bytes, int) or not isinstance(record.sha256, str):
            raise TypeError(f"files has {record.path!r}, which is no path with a size and a sha256")
