"""Opens a bundle's archive, member by member.

In: a ``.stepdown.tar.gz`` nobody vouches for. Out: its description, its signatures, and its blobs, each checked against
the description's length and sha256 while it streams to a file. ``tarfile`` is not used: what it forgives is what is
refused here. Must not import a runtime, nor anything outside ``runtimes``.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.archive_format import (
    BLOB_FOLDER,
    BLOCK,
    END,
    MAX_MEMBER_BYTES,
    SIGNATURES_NAME,
    padding,
    read_header,
)
from runtimes.bundle.description import DESCRIPTION_NAME, BundleDescription, parse_written
from runtimes.bundle.inflate import Inflater
from runtimes.bundle.strict_json import corrupt, mismatch
from runtimes.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Beyond what an archive is refused before it fills a disk or a memory.

    Attributes:
        total_bytes: Unpacked, headers included.
        ratio: Unpacked to packed, past the first MiB. Deflate reaches 1032; weights that are 99 % zeros about 60.
        members: Blobs, and files.
        description_bytes: ``bundle.json``, which is held in memory.
        signatures_bytes: ``signatures.json``, which is too.
    """

    total_bytes: int = 16 << 30
    ratio: int = 200
    members: int = 4096
    description_bytes: int = 4 << 20
    signatures_bytes: int = 64 << 10


class Archive:
    """An open archive: description and signatures are read, the blobs come once, in their order.

    Attributes:
        description_bytes: ``bundle.json``, what signatures cover.
        description: The same, read.
        signatures: ``signatures.json`` where it is signed inside, else None.
    """

    def __init__(self, inflater: Inflater, where: str, limits: Limits) -> None:
        self._inflater, self._where = inflater, where
        self.description_bytes = self._read_small(self._next_header(), DESCRIPTION_NAME, limits.description_bytes)
        self.description: BundleDescription = parse_written(self.description_bytes, f"{where}: {DESCRIPTION_NAME}")
        check_limits(self.description, limits)
        self.signatures: bytes | None = None
        self._pending = self._next_header()
        if self._pending[0] == SIGNATURES_NAME:
            self.signatures = self._read_small(self._pending, SIGNATURES_NAME, limits.signatures_bytes)
            self._pending = self._next_header()
        self._left = sorted(self.description.blobs)

    def blobs(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield each blob's sha256 and its pieces, which are to be read to their end before the next; once.

        Raises:
            CorruptArtifact: while reading: a member is missing, not listed, out of order, of another length or sha256,
                or something follows the last one.
        """
        while self._left:
            sha256 = self._left.pop(0)
            name, size = self._pending
            expected = self.description.blobs[sha256]
            if name != BLOB_FOLDER + sha256:
                raise corrupt(f"the next member should be {BLOB_FOLDER}{sha256}, it is {name[:100]!r}", self._where)
            if size != expected:
                raise mismatch(
                    "a blob has another length",
                    f"{self._where}: {name}",
                    expected=f"{expected} bytes",
                    found=f"{size} bytes",
                )
            yield sha256, self._pieces(sha256, size)
            self._skip_padding(size)
            self._pending = self._next_header()
        if self._pending[0]:
            raise corrupt(f"the member {self._pending[0][:100]!r} is not listed", self._where)
        self._inflater.finish()

    def check(self) -> None:
        """Read everything and keep nothing; see :meth:`blobs`."""
        for _, pieces in self.blobs():
            for _ in pieces:
                pass

    def unpack(self, directory: Path, variants: Collection[str] | None = None) -> None:
        """Write the layout of an installed bundle into an empty directory; everything is checked, wanted or not.

        What is written before an error stays: give a directory of your own, and drop it then.

        Args:
            directory: Holds ``bundle.json``, ``signatures.json``, ``shared/`` and ``variants/`` afterwards.
            variants: The names of those to keep; None keeps all.

        Raises:
            CorruptArtifact: see :meth:`blobs`.
            FileExistsError: something of that is there already.
        """
        targets = _list_targets(self.description, variants)
        for sha256, pieces in self.blobs():
            paths = [directory / path for path in targets.get(sha256, ())]
            with ExitStack() as stack:
                for path in paths[:1]:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stream = stack.enter_context(path.open("xb"))
                    pieces = _tee(pieces, stream.write)
                for _ in pieces:
                    pass
            for path in paths[1:]:
                path.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(paths[0], path)
        # Last: it is what makes the directory whole.
        if self.signatures is not None:
            _write_new(directory / SIGNATURES_NAME, self.signatures)
        _write_new(directory / DESCRIPTION_NAME, self.description_bytes)

    def _pieces(self, sha256: str, size: int) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for piece in self._inflater.pieces(size):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != sha256:
            where = f"{self._where}: {BLOB_FOLDER}{sha256}"
            raise mismatch("a blob has another sha256", where, expected=sha256, found=digest.hexdigest())

    def _read_small(self, header: tuple[str, int], expected: str, most: int) -> bytes:
        name, size = header
        if name != expected:
            raise corrupt(f"the next member should be {expected}, it is {name[:100]!r}", self._where)
        if size > most:
            raise corrupt(f"it has {size:,} bytes, {most:,} are allowed", f"{self._where}: {name}")
        data = self._inflater.read(size)
        self._skip_padding(size)
        return data

    def _skip_padding(self, size: int) -> None:
        if any(self._inflater.read(padding(size))):
            raise corrupt("something is hidden behind a member", self._where)

    def _next_header(self) -> tuple[str, int]:
        """Return name and size of the next member; an empty name at the end."""
        block = self._inflater.read(BLOCK)
        if any(block):
            return read_header(block)
        if any(self._inflater.read(len(END) - BLOCK)):
            raise corrupt("a member follows the end of the archive", self._where)
        return "", 0


@contextmanager
def open_archive(path: Path, limits: Limits | None = None) -> Iterator[Archive]:
    """Open a bundle's archive for as long as the block runs; the description is read and checked at once.

    Raises:
        CorruptArtifact: it is not a bundle, is damaged, or exceeds a limit.
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError("there is no such bundle", where=str(path), cure="check the path")
    limits = limits or Limits()
    with path.open("rb") as stream:
        where = path.name
        yield Archive(Inflater(stream, where=where, total_bytes=limits.total_bytes, ratio=limits.ratio), where, limits)


def check_limits(description: BundleDescription, limits: Limits) -> None:
    """Refuse what would exceed the limits before a byte of it is unpacked.

    What is stored once may be asked for in many places, so files count as well as blobs: where a file system has no
    hard links each of them is a copy.
    """
    blobs = description.blobs
    placed = description.placed_files().values()
    _limit(max(len(blobs), len(placed)), limits.members, "files", "files")
    _limit(max(blobs.values(), default=0), MAX_MEMBER_BYTES, "bytes in one blob", "blobs")
    _limit(sum(blobs.values()), limits.total_bytes, "bytes in all blobs", "blobs")
    _limit(sum(blobs[sha256] for sha256 in placed), limits.total_bytes, "bytes in all files", "files")


def _limit(found: int, most: int, what: str, field: str) -> None:
    if found > most:
        raise corrupt(f"{found:,} {what} are listed, {most:,} are allowed", f"{DESCRIPTION_NAME}:{field}")


def _list_targets(description: BundleDescription, variants: Collection[str] | None) -> dict[str, list[str]]:
    """Return where each blob goes, by its sha256."""
    dropped = [
        f"variants/{variant.name}/"
        for variant in description.variants
        if variants is not None and variant.name not in variants
    ]
    targets: dict[str, list[str]] = {}
    for path, sha256 in sorted(description.placed_files().items()):
        if not path.startswith(tuple(dropped)):
            targets.setdefault(sha256, []).append(path)
    return targets


def _tee(pieces: Iterator[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
