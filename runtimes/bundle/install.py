"""Puts bundles under a root, switches between versions and drops what is no longer used.

In: an archive and ``ROOT``. Out: ``ROOT/<name>/versions/<id>/``, and ``current`` and ``previous`` that point to two of
them. A version is written beside the others, waited for until it is on the disk, and renamed to its place; then
``current`` is switched by a rename. A process that is killed at any moment, or a machine that loses its power, leaves
``current`` on the old version or the new one, whole; what it leaves half-written is dropped by the next install.
Nothing of a bundle is run. Must not import a
runtime at module level.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from runtimes.artifact import hash_file
from runtimes.atomic import explained
from runtimes.bundle.archive import Archive, open_archive
from runtimes.bundle.archive_format import SIGNATURES_NAME
from runtimes.bundle.contents import check_contents
from runtimes.bundle.downgrade import refuse_downgrade
from runtimes.bundle.durable import (
    drop_half_switched,
    list_missing,
    make_folders,
    name_fresh,
    point,
    prepare,
    remove,
    switch,
    sync,
    sync_tree,
)
from runtimes.bundle.fit_here import require_fit
from runtimes.bundle.folder import refuse_folder
from runtimes.bundle.hold import unless_held
from runtimes.bundle.home import VERSIONS, check_files, identify, read_home
from runtimes.bundle.lock import LOCK, locked
from runtimes.bundle.machine import Machine, detect_machine_for
from runtimes.bundle.root import (
    CURRENT,
    PREVIOUS,
    list_ids,
    locate,
    read_link,
    read_own_link,
    refuse_links,
)
from runtimes.bundle.signature import Signature, check_signatures, dump_signatures, parse_signatures
from runtimes.bundle.trust import Trust, gather_signatures
from runtimes.errors import CorruptArtifact, UsageError

# Not ids, so nothing takes them for versions.
_STAGED, _DROPPED = ".new.", ".old."


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOptions:
    """What may be installed.

    Attributes:
        trust: Whose signature is asked for.
        allow_downgrade: Whether it may be older than what is current, another one of the same number, or unsigned
            where that is signed.
        allow_unfit: Whether it may be installed where no variant of it runs, as for another machine's disk.
    """

    trust: Trust = field(default_factory=Trust)
    allow_downgrade: bool = False
    allow_unfit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What is current now.

    Attributes:
        name: Of the bundle.
        id: Of the version.
        version: The packer's number.
        path: Where it lies.
        replaced: The id of what was current before, where that was another version.
        signature: What was proved of who made it, in words; None where nothing was looked at.
    """

    name: str
    id: str
    version: int | None
    path: Path
    replaced: str | None
    signature: str | None = None


def install(bundle: Path, root: Path, options: InstallOptions | None = None) -> Installed:
    """Install a bundle and make it the current version.

    What is installed already is compared with the archive file by file, and what is damaged is replaced.

    Args:
        bundle: The archive.
        root: The folder of installed bundles; made where it is not there.
        options: What may be installed.

    Raises:
        CorruptArtifact: the archive is damaged, is not signed as asked, fits nothing here, or may not follow what
            is installed (see :mod:`runtimes.bundle.downgrade`). Nothing has changed then.
        OutputError: no room, no permission or no such place.
        UsageError: there is no such archive, or it is a folder.
    """
    options = options or InstallOptions()
    refuse_folder(bundle)
    with open_archive(bundle) as archive:
        # Once: what is written further down is what was checked.
        signatures = gather_signatures(archive.signatures, options.trust)
        trusted = check_signatures(
            archive.description_bytes, signatures, options.trust.keys, require=options.trust.require_signature
        )
        machine = None if options.allow_unfit else detect_machine_for(archive.description.variants)
        if machine is not None:
            require_fit(archive.description, machine)
        place = root / archive.description.name
        refuse_links(place)
        with _opened(place):
            _sweep(place)
            replaced, _ = _read_links(place)
            number = identify(archive.description_bytes)
            if not options.allow_downgrade:
                refuse_downgrade(place, number, archive.description, trusted)
            _put(archive, signatures, place / VERSIONS / number, machine)
            _switch(place, number)
    return Installed(
        name=place.name,
        id=number,
        version=archive.description.version,
        path=place / VERSIONS / number,
        replaced=replaced if replaced != number else None,
        signature=trusted.describe(),
    )


def roll_back(root: Path, name: str) -> Installed:
    """Make the previous version the current one, and the current one the previous; doing it again undoes it.

    Raises:
        UsageError: there is no such bundle, or no previous version.
        CorruptArtifact: the previous version is damaged, ``current`` is no link of ours, or the folder of the bundle is
            one; it stays.
    """
    place = locate(root, name)
    with explained(place), locked(place):
        _sweep(place)
        current, previous = read_own_link(place, CURRENT), read_link(place, PREVIOUS)
        if previous is None or previous == current:
            raise UsageError("there is no previous version", where=str(place), cure="install the one you want")
        home = read_home(place / VERSIONS / previous)
        check_files(home)
        _switch(place, previous)
    return Installed(name=name, id=previous, version=home.description.version, path=home.path, replaced=current)


def collect_garbage(root: Path, name: str) -> tuple[str, ...]:
    """Drop every version but the current and the previous one; return the ids of those dropped.

    Nothing is dropped where no version is current, or the previous one is: what runs, or which of the others is the way
    back, is then unknown. Nor is what a program has open (see :func:`runtimes.serving.bundle.open_bundle`).

    Raises:
        UsageError: there is no such bundle.
        CorruptArtifact: ``current`` or ``previous`` is no link of ours, so that what runs is unknown; or the folder of
            the bundle is a link.
    """
    place = locate(root, name)
    with explained(place), locked(place):
        _sweep(place)
        current, previous = _read_links(place)
        if current in (None, previous):
            return ()
        dropped = tuple(one for one in list_ids(place) if one not in (current, previous) and _hide(place, one))
        sync(place / VERSIONS)
        _sweep(place)
    return dropped


def _hide(place: Path, one: str) -> bool:
    """Take a version out of sight at once, unless it is held: half a version is never seen as one."""
    version = place / VERSIONS / one
    with unless_held(version) as is_free:
        if is_free:
            version.rename(version.with_name(f"{_DROPPED}{one}"))
    return is_free


@contextmanager
def _opened(place: Path) -> Iterator[None]:
    """Make the folders of a bundle, keep others out, and take away again what was made where the block fails."""
    missing = list_missing(place / VERSIONS)
    with explained(place):
        try:
            make_folders(place)
            with locked(place):
                try:
                    make_folders(place / VERSIONS)
                    yield
                except BaseException:
                    if place in missing:  # while it is held: who waits for it finds that it is gone
                        (place / LOCK).unlink()
                    raise
        except BaseException:
            for folder in missing:
                # What another process put there meanwhile stays; the error to tell is the one that led here.
                with suppress(OSError):
                    folder.rmdir()
            raise


def _read_links(place: Path) -> tuple[str | None, str | None]:
    """Return what is current and what is previous; see :func:`~runtimes.bundle.root.read_own_link`."""
    return read_own_link(place, CURRENT), read_own_link(place, PREVIOUS)


def _put(archive: Archive, signatures: Sequence[Signature], target: Path, machine: Machine | None) -> None:
    """Unpack beside ``target`` and rename to it, once all is on the disk and fits the machine, where that is asked."""
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=_STAGED))
    try:
        archive.unpack(staging)
        if signatures:
            (staging / SIGNATURES_NAME).write_bytes(dump_signatures(signatures))
        check_contents(staging, archive.description)
        if machine is not None:
            require_fit(archive.description, machine, read_home(staging))
        _set_modes(staging)
        sync_tree(staging)
        if target.is_dir() and not target.is_symlink():
            _mend(staging, target)
        else:
            remove(target)
            staging.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _set_modes(directory: Path) -> None:
    """Let everybody read and nobody write, whatever the umask: files that are equal are one file under two names."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)


def _mend(staging: Path, target: Path) -> None:
    """Move over what is missing or differs, file by file; each is the old one or the new one at any moment."""
    for fresh in sorted(path for path in staging.rglob("*") if path.is_file()):
        relative = fresh.relative_to(staging)
        place = target / relative
        for folder in reversed(relative.parents[:-1]):
            _mend_folder(target / folder)
        if place.is_file() and not place.is_symlink() and hash_file(place) == hash_file(fresh):
            continue
        if place.is_dir():
            remove(place)
        fresh.replace(place)
    _drop_spoilt_signatures(target)
    sync_tree(target)


def _drop_spoilt_signatures(target: Path) -> None:
    """Remove signatures that cannot be read, which no unsigned bundle replaces; good ones stay, they cover the same."""
    try:
        signatures = read_home(target).signatures
        if signatures is not None:
            parse_signatures(signatures)
    except CorruptArtifact:
        remove(target / SIGNATURES_NAME)


def _mend_folder(folder: Path) -> None:
    """Make it where it is not there, and where a link or a file has its name: a link is not written through."""
    if folder.is_symlink() or not folder.is_dir():
        remove(folder)
        folder.mkdir()
        folder.chmod(0o755)


def _switch(place: Path, number: str) -> None:
    """Point ``current`` to a version, and ``previous`` to what it pointed to.

    What ``previous`` becomes is written down first: who is killed between the two leaves the second to :func:`_sweep`.
    """
    current = read_link(place, CURRENT)
    if current == number:
        return
    if current is not None:
        prepare(place / PREVIOUS, f"{VERSIONS}/{current}")
    point(place / CURRENT, f"{VERSIONS}/{number}")
    if current is not None:
        switch(place / PREVIOUS)


def _sweep(place: Path) -> None:
    """Finish the switch that a killed process began, and remove what it left half-written or half-removed."""
    for pattern in (_STAGED, _DROPPED):
        for left in (place / VERSIONS).glob(f"{pattern}*"):
            remove(left)
    current, pending = read_link(place, CURRENT), read_link(place, name_fresh(place / PREVIOUS).name)
    if None not in (current, pending) and current != pending:
        switch(place / PREVIOUS)
    for link in (CURRENT, PREVIOUS):
        drop_half_switched(place / link)
