"""Where installed bundles lie: ``ROOT/<name>/versions/<id>/``, and which of them is the current one.

In: a root. Out: what is there. Reads only. Must not import a runtime.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.home import ID, VERSIONS, Home, is_home, read_home
from runtimes.bundle.names import NAME
from runtimes.errors import CorruptArtifact, UsageError

CURRENT, PREVIOUS = "current", "previous"
_TARGET = re.compile(rf"{VERSIONS}/({ID.pattern})")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledVersion:
    """One version of one bundle: ``version`` is the packer's number, ``size_bytes`` what its files hold.

    ``damage`` says what keeps its description from being read; the other facts are then unknown.
    """

    name: str
    id: str
    version: int | None
    size_bytes: int
    is_signed: bool
    is_current: bool
    is_previous: bool
    damage: str | None = None


def locate(root: Path, name: str) -> Path:
    """Return the folder of a bundle.

    Raises:
        UsageError: there is none of that name.
        CorruptArtifact: a link lies there, which is not followed.
    """
    place = root / name
    if NAME.fullmatch(name) is None or not (place / VERSIONS).is_dir():
        raise UsageError(f"no bundle {name!r} is installed", where=str(root), cure="see `stepdown installed`")
    refuse_links(place)
    return place


def refuse_links(place: Path) -> None:
    """Refuse to write where a link leads: that is outside of the root, as far as anybody knows.

    Raises:
        CorruptArtifact: the folder of a bundle is a link, or that of its versions.
    """
    for folder in (place, place / VERSIONS):
        if folder.is_symlink():
            raise CorruptArtifact(
                "it is a link, which is not followed",
                where=str(folder),
                cure="remove it, and put the folder that it leads to in its place",
            )


def read_link(place: Path, link: str) -> str | None:
    """Return the id that ``current`` or ``previous`` points to; None where it is not there, or points elsewhere."""
    try:
        match = _TARGET.fullmatch((place / link).readlink().as_posix())
    except OSError:
        return None
    return match[1] if match is not None else None


def read_own_link(place: Path, link: str) -> str | None:
    """Return the id that a link points to; None only where nothing is there.

    Raises:
        CorruptArtifact: what is there leads elsewhere, or is no link: what runs cannot be told.
    """
    found = read_link(place, link)
    if found is None and os.path.lexists(place / link):
        raise CorruptArtifact(
            "it is no link to one of the versions, as install makes it",
            where=str(place / link),
            cure=f"move it away, and put a link to {VERSIONS}/ID in its place",
        )
    return found


def read_current(place: Path) -> Home | None:
    """Return the current version; None where there is none.

    Raises:
        CorruptArtifact: its description is damaged, or ``current`` points to what is not there.
    """
    current = read_link(place, CURRENT)
    if current is None:
        return None
    home = place / VERSIONS / current
    if not is_home(home):
        raise CorruptArtifact("the current version is not there", where=str(home), cure="install it again")
    return read_home(home)


def list_ids(place: Path) -> tuple[str, ...]:
    """Return the versions that are whole folders, sorted."""
    return tuple(sorted(path.name for path in (place / VERSIONS).iterdir() if ID.fullmatch(path.name)))


def list_installed(root: Path) -> tuple[InstalledVersion, ...]:
    """Return every version of every bundle, by name, the current one of each first; what is no bundle is passed over.

    Raises:
        UsageError: there is no such root.
    """
    if not root.is_dir():
        raise UsageError("there is no such folder", where=str(root), cure="check --root")
    names = sorted(place.name for place in root.iterdir() if NAME.fullmatch(place.name) and (place / VERSIONS).is_dir())
    return tuple(version for name in names for version in _list_versions(root / name))


def _list_versions(place: Path) -> Iterator[InstalledVersion]:
    current, previous = read_link(place, CURRENT), read_link(place, PREVIOUS)
    ranked = sorted(list_ids(place), key=lambda one: (one != current, one != previous, one))
    for one in ranked:
        home, damage = _read(place / VERSIONS / one)
        yield InstalledVersion(
            name=place.name,
            id=one,
            version=home.description.version if home else None,
            size_bytes=sum(home.description.blobs.values()) if home else 0,
            is_signed=home is not None and home.signatures is not None,
            is_current=one == current,
            is_previous=one == previous,
            damage=damage,
        )


def _read(path: Path) -> tuple[Home | None, str | None]:
    try:
        return read_home(path), None
    except (CorruptArtifact, UsageError) as error:
        return None, error.what
