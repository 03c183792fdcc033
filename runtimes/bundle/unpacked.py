"""Unpacks an archive once, into a cache: what is there already is used.

In: an archive. Out: an unpacked bundle. Its files are checked when they are opened, so that a cache that was changed is
found out; it is then unpacked again. Must not import a runtime.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from runtimes.atomic import make_directory, saying_no_room
from runtimes.bundle.archive import Archive, open_archive
from runtimes.bundle.contents import check_contents
from runtimes.bundle.durable import remove
from runtimes.bundle.home import Home, check_files, identify, is_home, read_home
from runtimes.bundle.lock import locked
from runtimes.bundle.trust import Trust, check_trust
from runtimes.errors import CorruptArtifact

# No id, so nothing takes it for an unpacked bundle.
_STAGED = ".new."


def unpack_to_cache(bundle: Path, trust: Trust, cache: Path) -> Home:
    """Return the unpacked form of an archive, which is made where it is not there or is damaged.

    The signature is checked before anything is unpacked. An archive whose description is that of what lies in the cache
    is not read any further: the files there are what the description lists, and were found to be what they should.

    Raises:
        CorruptArtifact: the archive is damaged, or not signed as asked.
        OutputError: the cache cannot be written.
    """
    with open_archive(bundle) as archive:
        check_trust(archive.description_bytes, archive.signatures, trust)
        target = cache / identify(archive.description_bytes)
        if not _is_whole(target, archive):
            make_directory(cache)
            with locked(cache):
                _sweep(cache)
                if not _is_whole(target, archive):
                    _unpack(archive, target)
        found = read_home(target)
        return Home(
            path=found.path,
            description=archive.description,
            description_bytes=archive.description_bytes,
            signatures=archive.signatures,
        )


def _is_whole(target: Path, archive: Archive) -> bool:
    """Whether what lies there is what the archive holds: by the archive's own description, not by the one found."""
    if target.is_symlink() or not is_home(target):
        return False
    try:
        found = read_home(target)
        check_files(found)
    except CorruptArtifact:
        return False
    return found.description_bytes == archive.description_bytes


def _sweep(cache: Path) -> None:
    """Remove what a killed process left half-unpacked; nobody else unpacks while the cache is locked."""
    for left in cache.glob(f"{_STAGED}*"):
        remove(left)


def _unpack(archive: Archive, target: Path) -> None:
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=_STAGED))
    try:
        with saying_no_room(target):
            archive.unpack(staging)
            check_contents(staging, archive.description)
            staging.chmod(0o755)
            remove(target)
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
