"""What a user may ask of `stepdown pack`, and what comes of it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtimes.bundle.description import BundleDescription, FallbackStep

BundleFormat = Literal["tar", "oci"]
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """What goes into a bundle, and where it is written.

    Attributes:
        exports: Directories that ``export`` wrote, one or more.
        output: The archive, or the folder of an OCI layout.
        devices: Names of profiles or TOML files: one for each of ``exports``, or several for a single one. Empty takes
            for each the least demanding CPU profile that gives the answers it was exported with.
        name: What it is called on the device; None takes the name that the export was given.
        version: Grows with each release, so that an older bundle is refused; None where nobody counts.
        max_length: Tokens kept of a text; None takes what the export was judged at.
        licence: Of the source model, an SPDX expression.
        kernels: Libraries of sparse kernels for other architectures than this machine's.
        policy: What a device may fall back to, in order; None: whatever the bundle holds.
        keys: Private keys to sign with.
        detached: Whether the signature lies beside the archive and not in it.
        format: An archive, or an OCI image layout.
        force: Whether ``output`` may be there, and is replaced.
    """

    exports: tuple[Path, ...]
    output: Path
    devices: tuple[str, ...] = ()
    name: str | None = None
    version: int | None = None
    max_length: int | None = None
    licence: str = UNKNOWN_LICENCE
    kernels: tuple[Path, ...] = ()
    policy: tuple[FallbackStep, ...] | None = None
    keys: tuple[Path, ...] = ()
    detached: bool = False
    format: BundleFormat = "tar"
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """What was written.

    Attributes:
        output: Where the bundle lies.
        signature: The detached signature, if there is one.
        sha256: Of the archive; of ``index.json`` for an OCI layout, which names everything else by its hash.
        size_bytes: Of everything that was written.
        bundle_id: The name of this version on a device: the start of the sha256 of ``bundle.json``.
        description: What the bundle says of itself.
        signed: Whether it is signed.
        notes: What is worth knowing, one sentence each.
    """

    output: Path
    signature: Path | None
    sha256: str
    size_bytes: int
    bundle_id: str
    description: BundleDescription
    signed: bool
    notes: tuple[str, ...] = field(default=())
