"""Writes a bundle as an OCI image layout: the members of the archive as the layers of an artifact.

In: a description and its blobs. Out: a folder that registries' tools read (skopeo, oras, umoci), the same bytes for the
same content. Must not import a runtime.

Source: OCI Image Format Specification 1.1: image-layout.md, image-index.md, manifest.md ("Guidelines for Artifact
Usage": the artifact's type, an empty config), annotations.md.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.packing.options import UNKNOWN_LICENCE
from runtimes.artifact import hash_file
from runtimes.atomic import new_file, write_bytes
from runtimes.bundle.archive_format import BLOB_FOLDER, SIGNATURES_NAME
from runtimes.bundle.description import DESCRIPTION_NAME, BundleDescription
from runtimes.bundle.oci_layout import ARTIFACT_TYPE, INDEX, TITLE

DESCRIPTION_TYPE = "application/vnd.stepdown.bundle.description.v1+json"
SIGNATURES_TYPE = "application/vnd.stepdown.bundle.signatures.v1+json"
BLOB_TYPE = "application/vnd.stepdown.bundle.blob.v1"

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_ANNOTATION = "org.opencontainers.image"


def write_layout(
    folder: Path, description: BundleDescription, blobs: Mapping[str, Path | bytes], signatures: bytes | None
) -> None:
    """Fill an empty folder.

    The layers are the members of the archive in its order, each called by its name there: what ``oras pull`` fetches is
    what the archive holds.
    """
    (folder / BLOB_FOLDER).mkdir(parents=True)
    layers = [_name(_add(folder, description.to_bytes(), DESCRIPTION_TYPE), DESCRIPTION_NAME)]
    if signatures is not None:
        layers.append(_name(_add(folder, signatures, SIGNATURES_TYPE), SIGNATURES_NAME))
    for sha256, source in sorted(blobs.items()):
        layers.append(_name(_add(folder, source, BLOB_TYPE), BLOB_FOLDER + sha256))
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": _add(folder, _EMPTY, _EMPTY_TYPE),
        "layers": layers,
        "annotations": _annotate(description),
    }
    tag = str(description.version) if description.version is not None else "latest"
    entry = {
        **_add(folder, _dump(manifest), _MANIFEST_TYPE),
        "artifactType": ARTIFACT_TYPE,
        "annotations": {f"{_ANNOTATION}.ref.name": tag},
    }
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [entry]}
    write_bytes(folder / "oci-layout", _dump({"imageLayoutVersion": "1.0.0"}))
    write_bytes(folder / INDEX, _dump(index))


def measure_layout(folder: Path) -> int:
    """Return the bytes of all files of a layout."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _add(folder: Path, source: Path | bytes, media_type: str) -> dict[str, Any]:
    """Put a blob into the layout and return its descriptor."""
    sha256 = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else hash_file(source)
    blob = folder / BLOB_FOLDER / sha256
    if isinstance(source, bytes):
        write_bytes(blob, source)
    else:
        with source.open("rb") as stream, new_file(blob) as copy:
            shutil.copyfileobj(stream, copy)
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": blob.stat().st_size}


def _name(descriptor: dict[str, Any], title: str) -> dict[str, Any]:
    return {**descriptor, "annotations": {TITLE: title}}


def _annotate(description: BundleDescription) -> dict[str, str]:
    said = {"title": description.name}
    if description.licence != UNKNOWN_LICENCE:
        said["licenses"] = description.licence
    if description.version is not None:
        said["version"] = str(description.version)
    return {f"{_ANNOTATION}.{key}": value for key, value in sorted(said.items())}


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
