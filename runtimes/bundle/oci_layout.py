"""Makes the archive again of a bundle that came from a registry: an OCI image layout in, the same bytes out.

In: a folder that ``pack --format oci`` wrote, or that a registry's tool (skopeo, oras) copied. Out: the archive, the
same to the byte as ``pack`` writes. Nothing in the layout is trusted: what is not as its digest says is refused, and
the archive is then verified like any other. Must not import a runtime, nor anything outside ``runtimes``.

Source: OCI Image Format Specification 1.1: image-layout.md, image-index.md, manifest.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtimes.bundle.archive import Limits
from runtimes.bundle.archive_format import BLOB_FOLDER, SIGNATURES_NAME
from runtimes.bundle.archive_writer import write_archive
from runtimes.bundle.description import DESCRIPTION_NAME, BundleDescription, parse_written
from runtimes.bundle.strict_json import corrupt, load_json
from runtimes.errors import CorruptArtifact

ARTIFACT_TYPE = "application/vnd.stepdown.bundle.v1"
INDEX = "index.json"
TITLE = "org.opencontainers.image.title"

_LAYOUT = "oci-layout"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def is_layout(folder: Path) -> bool:
    """Whether a folder says that it is an OCI image layout."""
    return (folder / _LAYOUT).is_file() and (folder / INDEX).is_file()


def archive_layout(layout: Path, output: Path) -> BundleDescription:
    """Write the archive of the one bundle in a layout, and return what it says of itself.

    Raises:
        CorruptArtifact: there is not exactly one bundle, or a file is missing or not what its digest says.
        OutputError: no room, no permission or no such place.
    """
    try:
        manifest = _find_manifest(layout)
        layers = _list_layers(manifest)
        head = _read_blob(layout, layers[DESCRIPTION_NAME], Limits().description_bytes)
        signed = layers.get(SIGNATURES_NAME)
        signatures = _read_blob(layout, signed, Limits().signatures_bytes) if signed is not None else None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise corrupt(f"the layout does not hold together: {error!r}"[:200], str(layout)) from error
    description = parse_written(head, f"{layout}:{DESCRIPTION_NAME}")
    _check_layers(layers, description)
    blobs: dict[str, Path | bytes] = {sha256: _locate(layout, sha256) for sha256 in description.blobs}
    write_archive(output, description, blobs, signatures)
    return description


def _find_manifest(layout: Path) -> Mapping[str, Any]:
    """Return the manifest of the one bundle that the index names."""
    index = load_json(_read_small(layout / INDEX, Limits().description_bytes), INDEX)
    found = []
    for entry in index["manifests"]:
        data = _read_blob(layout, entry["digest"], Limits().description_bytes)
        manifest = load_json(data, f"{INDEX}:manifests")
        if manifest.get("artifactType") == ARTIFACT_TYPE:
            found.append(manifest)
    if len(found) != 1:
        raise corrupt(f"it holds {len(found)} bundles, and should hold one", str(layout))
    manifest_found: Mapping[str, Any] = found[0]
    return manifest_found


def _list_layers(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each layer by its title.

    Raises:
        CorruptArtifact: two have one title, of which other tools may take either.
        KeyError, TypeError, AttributeError: a layer is no layer.
    """
    layers: dict[str, str] = {}
    for layer in manifest["layers"]:
        title, digest = layer["annotations"][TITLE], layer["digest"]
        if not isinstance(title, str) or not isinstance(digest, str):
            raise TypeError("a title or digest that is no text")
        if title in layers:
            raise corrupt(f"two layers are called {title[:100]!r}", f"{INDEX}:manifests")
        layers[title] = digest
    return layers


def _check_layers(layers: Mapping[str, str], description: BundleDescription) -> None:
    """Refuse layers that are other than the members of the archive."""
    members = {BLOB_FOLDER + sha256: f"sha256:{sha256}" for sha256 in description.blobs}
    blobs = {title: digest for title, digest in layers.items() if title not in {DESCRIPTION_NAME, SIGNATURES_NAME}}
    others = sorted(title for title, _ in members.items() ^ blobs.items())
    if others:
        raise corrupt(f"the layers are not the bundle's: {others[0][:100]!r}", f"{INDEX}:manifests")


def _read_blob(layout: Path, digest: str, most_bytes: int) -> bytes:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise corrupt(f"{digest[:80]!r} is no digest", str(layout))
    data = _read_small(_locate(layout, match[1]), most_bytes)
    if hashlib.sha256(data).hexdigest() != match[1]:
        raise corrupt(f"the blob {match[1]} is not what its digest says", str(layout))
    return data


def _locate(layout: Path, sha256: str) -> Path:
    path = layout / BLOB_FOLDER / sha256
    if not path.is_file():
        raise CorruptArtifact(
            f"the blob {sha256} is missing", where=str(layout), cure="copy the layout from the registry again"
        )
    return path


def _read_small(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise corrupt(f"it is larger than {most_bytes} bytes", str(path))
    return data
