"""Refuses what would undo an update, as who replays an old bundle would have it.

In: a bundle's description, and the versions that are installed. Out: a refusal, or nothing. Must not import a runtime.
"""

from __future__ import annotations

from pathlib import Path

from runtimes.bundle.description import BundleDescription
from runtimes.bundle.home import VERSIONS, Home, read_home
from runtimes.bundle.root import CURRENT, list_ids, read_current, read_link
from runtimes.bundle.signature import SignatureReport
from runtimes.errors import CorruptArtifact, UsageError

_CURE = "install the newer one, or pass --allow-downgrade"


def refuse_downgrade(place: Path, number: str, description: BundleDescription, trusted: SignatureReport) -> None:
    """Compare with the current version; where it is damaged or not there, with each that can be read.

    Args:
        place: The folder of the bundle.
        number: The id of what is to be installed: it may always mend itself.
        description: What it says of itself.
        trusted: What is proved of who made it.

    Raises:
        CorruptArtifact: it is older, has the number of another one, says no version where the installed one does, or is
            unsigned where that is signed; or nothing can be read to compare it with.
    """
    for home in _list_before(place, number):
        where, found, installed = str(place), description.version, home.description.version
        if installed is not None and (found is None or found < installed):
            said = f"version {found}" if found is not None else "without a version"
            raise CorruptArtifact(f"the bundle is {said}, version {installed} is installed", where=where, cure=_CURE)
        if installed is not None and found == installed and home.id != number:
            raise CorruptArtifact(
                f"another bundle is installed as version {installed}",
                where=where,
                cure="pack it with a larger --version, or pass --allow-downgrade",
            )
        if home.signatures is not None and trusted.state == "unsigned":
            raise CorruptArtifact("the bundle is unsigned, the installed version is signed", where=where, cure=_CURE)


def _list_before(place: Path, number: str) -> list[Home]:
    """Return what the new one is compared with.

    Raises:
        CorruptArtifact: there is something, and nothing of it can be read.
    """
    try:
        current = read_current(place)
    except CorruptArtifact:
        if read_link(place, CURRENT) == number:
            return []  # it is what mends it
        current = None
    if current is not None:
        return [current]
    ids = list_ids(place)
    readable = [home for one in ids if (home := _read(place / VERSIONS / one)) is not None]
    if not readable and any(one != number for one in ids):
        raise CorruptArtifact(
            "no installed version can be read, so nobody knows whether this one is older",
            where=str(place),
            cure="install the current version again, which mends it; or pass --allow-downgrade",
        )
    return readable


def _read(path: Path) -> Home | None:
    """Return a version, unless it is damaged: there is nothing to compare with."""
    try:
        return read_home(path)
    except (CorruptArtifact, UsageError):
        return None
