"""Writes a bundle's archive: the same content gives the same bytes, whatever the clock, the user or the locale.

In: a description and a file for each of its blobs. Out: a ``.stepdown.tar.gz``, whole or not at all. Must not import a
runtime, nor anything outside ``runtimes``.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from runtimes.atomic import new_file
from runtimes.bundle.archive import Limits, check_limits
from runtimes.bundle.archive_format import (
    BLOB_FOLDER,
    END,
    GZIP_HEADER,
    SIGNATURES_NAME,
    make_header,
    padding,
)
from runtimes.bundle.description import DESCRIPTION_NAME, BundleDescription, parse_description
from runtimes.errors import CorruptArtifact

_PIECE = 1 << 20


def write_archive(
    path: Path, description: BundleDescription, blobs: Mapping[str, Path | bytes], signatures: bytes | None = None
) -> None:
    """Write a bundle: the same description, blobs and signatures give the same bytes.

    (Deflate's output is a matter of the zlib in use: another implementation may pack a little better or worse.)

    Args:
        path: Replaced when the whole is written, not before.
        description: What goes in as ``bundle.json``; its ``blobs`` are what is packed.
        blobs: A file, or the bytes themselves, for each sha256.
        signatures: What goes in as ``signatures.json``.

    Raises:
        CorruptArtifact: the description does not hold together, or a file is not what it says.
        OutputError: no room, no permission or no such place.
    """
    head = description.to_bytes()
    check_limits(parse_description(head), Limits())
    with new_file(path) as stream:
        out = _Deflater(stream)
        out.member(DESCRIPTION_NAME, len(head), [head])
        if signatures is not None:
            out.member(SIGNATURES_NAME, len(signatures), [signatures])
        for sha256, size in sorted(description.blobs.items()):
            out.member(BLOB_FOLDER + sha256, size, _read_checked(blobs[sha256], sha256, size))
        out.finish()


def _read_checked(source: Path | bytes, sha256: str, size: int) -> Iterator[bytes]:
    digest, read = hashlib.sha256(), 0
    for piece in [source] if isinstance(source, bytes) else _read_file(source):
        digest.update(piece)
        read += len(piece)
        yield piece
    if (read, digest.hexdigest()) != (size, sha256):
        where = "its bytes" if isinstance(source, bytes) else str(source)
        raise CorruptArtifact(
            f"it is not the blob {sha256} of {size} bytes", where=where, cure="pack it when nothing writes to it"
        )


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


class _Deflater:
    """Packs members into one gzip stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._zlib = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc, self._size = 0, 0
        stream.write(GZIP_HEADER)

    def member(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Add one member of ``size`` bytes."""
        self._write(make_header(name, size))
        for piece in pieces:
            self._write(piece)
        self._write(bytes(padding(size)))

    def finish(self) -> None:
        """End the archive."""
        self._write(END)
        self._stream.write(self._zlib.flush())
        self._stream.write(self._crc.to_bytes(4, "little") + (self._size % (1 << 32)).to_bytes(4, "little"))

    def _write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._stream.write(self._zlib.compress(data))
