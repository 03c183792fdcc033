"""A bundle as it lies unpacked: a version of an installed one, or the cache of one that was opened from its archive.

In: a folder. Out: its description, and whether its files are those that are listed. Must not import a runtime.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath

from runtimes.artifact import hash_file
from runtimes.bundle.archive_format import SIGNATURES_NAME
from runtimes.bundle.description import DESCRIPTION_NAME, BundleDescription, Variant, parse_description
from runtimes.bundle.signature import MAX_SIGNATURES_BYTES
from runtimes.errors import CorruptArtifact, UsageError

# The largest one that an archive may hold (see archive.Limits).
_MAX_DESCRIPTION_BYTES = 4 << 20
_ID_DIGITS = 16
VERSIONS = "versions"
ID = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}")
_CURE = "install it again, which mends it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """An unpacked bundle.

    Attributes:
        path: The folder, with no link in it: what ``current`` points to may change while this is in use.
        description: What it says of itself.
        description_bytes: The same as written, which signatures cover.
        signatures: ``signatures.json``, where there is one.
    """

    path: Path
    description: BundleDescription
    description_bytes: bytes
    signatures: bytes | None

    @property
    def id(self) -> str:
        """What tells this version from any other."""
        return identify(self.description_bytes)

    @property
    def shared(self) -> Path:
        """Where the files lie that all variants use."""
        return self.path / "shared"

    def locate(self, variant: Variant) -> Path:
        """Return where the files of a variant lie."""
        return self.path / "variants" / variant.name


def identify(description_bytes: bytes) -> str:
    """Return the name of a version: the start of the sha256 of its description, which names the hash of all else."""
    return hashlib.sha256(description_bytes).hexdigest()[:_ID_DIGITS]


def is_home(path: Path) -> bool:
    """Whether an unpacked bundle lies there, by what it holds."""
    return (path / DESCRIPTION_NAME).is_file()


def read_home(path: Path) -> Home:
    """Read the description of an unpacked bundle; its files are not looked at (see :func:`check_files`).

    Links that lead to it, as ``current`` does, are followed; a version's own folder and its files are no links.

    Raises:
        UsageError: there is none.
        CorruptArtifact: the description is damaged, lies behind a link, or is that of another version than the folder
            of a version is named for.
    """
    if not is_home(path):
        raise UsageError("there is no unpacked bundle", where=str(path), cure="check the path, or install one")
    real = _follow(path).resolve()
    data = _read_small(real / DESCRIPTION_NAME, _MAX_DESCRIPTION_BYTES)
    if _is_version(real) and identify(data) != real.name:
        raise CorruptArtifact(
            f"the description is that of {identify(data)}, the folder is named for another",
            where=str(real / DESCRIPTION_NAME),
            cure=_CURE,
        )
    signatures = real / SIGNATURES_NAME
    return Home(
        path=real,
        description=parse_description(data),
        description_bytes=data,
        signatures=_read_small(signatures, MAX_SIGNATURES_BYTES) if os.path.lexists(signatures) else None,
    )


def _follow(path: Path) -> Path:
    """Return where links lead to, as far as nobody put one in the place of a version."""
    while path.is_symlink():
        if _is_version(path):
            raise CorruptArtifact("the folder of the version is a link", where=str(path), cure=_CURE)
        path = path.parent / path.readlink()
    return path


def _is_version(path: Path) -> bool:
    """Whether a folder is named as that of an installed version: for what its description hashes to."""
    return path.parent.name == VERSIONS and ID.fullmatch(path.name) is not None


def check_files(home: Home, variants: Collection[str] | None = None) -> None:
    """Check that files are there and are those that the description lists.

    Args:
        home: The unpacked bundle.
        variants: Names of those whose files are checked, beside what all share; None checks all.

    Raises:
        CorruptArtifact: one is missing, is no plain file, lies behind a link, or has another size or sha256.
    """
    for path, sha256 in home.description.placed_files().items():
        if variants is None or path.startswith(("shared/", *(f"variants/{name}/" for name in variants))):
            _check_folders(home.path, path)
            _check_file(home.path / path, sha256, home.description.blobs[sha256])


def _check_folders(home: Path, path: str) -> None:
    for folder in PurePath(path).parents[:-1]:
        if (home / folder).is_symlink():
            raise CorruptArtifact("a folder of the bundle is a link", where=str(home / folder), cure=_CURE)


def _check_file(path: Path, sha256: str, size: int) -> None:
    try:
        found = path.lstat()
    except OSError as error:
        raise CorruptArtifact("a file of the bundle is missing", where=str(path), cure=_CURE) from error
    if not stat.S_ISREG(found.st_mode):
        raise CorruptArtifact("a file of the bundle is no plain file", where=str(path), cure=_CURE)
    if found.st_size != size:
        raise CorruptArtifact(
            f"a file of the bundle has {found.st_size} bytes, {size} are listed", where=str(path), cure=_CURE
        )
    digest = hash_file(path)
    if digest != sha256:
        raise CorruptArtifact(
            f"the sha256 of a file of the bundle is {digest}, {sha256} is listed", where=str(path), cure=_CURE
        )


def _read_small(path: Path, most: int) -> bytes:
    with os.fdopen(_open_plain(path), "rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise CorruptArtifact(f"it has more than the {most:,} bytes that are allowed", where=str(path), cure=_CURE)
    return data


def _open_plain(path: Path) -> int:
    """Open a file that is no link, folder or pipe; nobody waits for who would write into a pipe."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise CorruptArtifact("a file of the bundle is a link", where=str(path), cure=_CURE) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CorruptArtifact("a file of the bundle is no plain file", where=str(path), cure=_CURE)
    return handle
