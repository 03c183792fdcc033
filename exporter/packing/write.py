"""Writes a described bundle, once it is proved that a device would take it.

In: a description, its blobs and signatures. Out: an archive or an OCI layout in its place, or nothing there at all.
Must not import torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.packing.blobs import Blobs
from exporter.packing.oci import measure_layout, write_layout
from exporter.packing.options import PackOptions
from runtimes.artifact import hash_file
from runtimes.atomic import new_directory, write_bytes
from runtimes.bundle.archive import open_archive
from runtimes.bundle.archive_writer import write_archive
from runtimes.bundle.contents import check_contents
from runtimes.bundle.description import BundleDescription
from runtimes.bundle.oci_layout import INDEX
from runtimes.bundle.profiles import DeviceProfile
from runtimes.errors import CorruptArtifact, OutputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A bundle that is not written yet: ``signatures`` is None where nobody signs."""

    description: BundleDescription
    blobs: Blobs
    signatures: bytes | None
    profiles: Sequence[DeviceProfile]


def locate_signature(output: Path) -> Path:
    """Return where the detached signature of an archive lies."""
    return output.with_name(f"{output.name}.sig")


def write_bundle(options: PackOptions, packed: Packed) -> tuple[str, int]:
    """Write the bundle and return its sha256 (of an OCI layout's index) and size in bytes.

    Raises:
        CorruptArtifact: a device would refuse it, or its profile does not allow the size.
        OutputError: no room, or no permission.
    """
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=f".{options.output.name}.") as scratch:
        archive = Path(scratch) / options.output.name
        inside = None if options.detached else packed.signatures
        write_archive(archive, packed.description, packed.blobs.sources(), inside)
        _prove(archive, Path(scratch) / "unpacked")
        if options.format == "oci":
            return _write_layout(options, packed)
        sha256, size = hash_file(archive), archive.stat().st_size
        _check_size(size, packed.profiles)
        _replace(options, archive, packed.signatures if options.detached else None)
    return sha256, size


def _replace(options: PackOptions, archive: Path, detached: bytes | None) -> None:
    """Move an archive to its place, and its detached signature beside it; one of an older archive does not stay.

    The signature is on the disk before anything is moved: where there is no room for it, nothing has changed. The old
    one goes first, and comes back where the archive cannot be replaced: it never lies beside another archive.

    Raises:
        OutputError: no room, or what is there cannot be replaced.
    """
    place = locate_signature(options.output)
    fresh, old = archive.with_name("signature"), archive.with_name("signature-before")
    if place.is_dir() and not place.is_symlink():
        raise OutputError(
            "a folder is in the way of the signature", where=str(place), cure="remove it, or choose another -o"
        )
    if detached is not None:
        write_bytes(fresh, detached)
    signed_before = place.is_file() or place.is_symlink()
    if signed_before:
        place.replace(old)
    try:
        archive.replace(options.output)
    except OSError:
        if signed_before:
            old.replace(place)
        raise
    if detached is not None:
        fresh.replace(place)


def _prove(archive: Path, home: Path) -> None:
    """Read the archive as a device does: what none would take is not written."""
    home.mkdir()
    with open_archive(archive) as opened:
        opened.unpack(home)
        check_contents(home, opened.description)


def _write_layout(options: PackOptions, packed: Packed) -> tuple[str, int]:
    with new_directory(options.output, force=options.force) as staging:
        write_layout(staging, packed.description, packed.blobs.sources(), packed.signatures)
        sha256, size = hash_file(staging / INDEX), measure_layout(staging)
        _check_size(size, packed.profiles)
    return sha256, size


def _check_size(size: int, profiles: Sequence[DeviceProfile]) -> None:
    for profile in profiles:
        if profile.bundle_bytes is not None and size > profile.bundle_bytes:
            raise CorruptArtifact(
                f"it does not fit {profile.name}: the bundle has {size:,} bytes, the profile allows "
                f"{profile.bundle_bytes:,}",
                where=profile.name,
                cure="compress the model further, or pack fewer variants into one bundle",
            )
