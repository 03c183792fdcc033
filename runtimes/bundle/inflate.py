"""Unpacks one gzip stream piece by piece, with bounded memory, and refuses bombs and whatever follows its end.

In: an open file and limits. Out: exactly as many bytes as are asked for. Must not import anything but the standard
library and ``runtimes``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from runtimes.bundle.archive_format import GZIP_HEADER
from runtimes.bundle.strict_json import corrupt

_PIECE = 1 << 16
# Below this no ratio is judged: a few headers of zeros compress a hundredfold.
_RATIO_FROM_BYTES = 1 << 20


class Inflater:
    """Reads the inside of a gzip file, forwards only.

    Args:
        stream: The file, at its start.
        where: Its name, for messages.
        total_bytes: What may come out in all.
        ratio: How many times more than went in may come out, past the first MiB.
    """

    def __init__(self, stream: BinaryIO, *, where: str, total_bytes: int, ratio: int) -> None:
        self._stream, self._where, self._total_bytes, self._ratio = stream, where, total_bytes, ratio
        head = stream.read(len(GZIP_HEADER))
        if head[:3] != GZIP_HEADER[:3]:
            raise corrupt("it is not a gzip file", where)
        if head != GZIP_HEADER:
            raise corrupt("its gzip header is not a bundle's (it has a name, a time or other flags)", where)
        # 31: zlib reads header and trailer of gzip itself, and so checks the sum and the length at the end.
        self._zlib = zlib.decompressobj(31)
        self._zlib.decompress(head)
        self._in, self._out, self._waiting = len(head), 0, b""

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes.

        Raises:
            CorruptArtifact: the file ends before, is damaged, or exceeds a limit.
        """
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield exactly ``size`` bytes in pieces of at most 64 KiB; see :meth:`read`."""
        while size:
            piece = self._next(min(size, _PIECE))
            if not piece:
                raise corrupt("the archive ends too early", self._where)
            size -= len(piece)
            yield piece

    def finish(self) -> None:
        """Refuse whatever follows.

        Raises:
            CorruptArtifact: more comes out, the sum at the end is wrong, or bytes follow the stream's end.
        """
        if self._next(1):
            raise corrupt("there is more in the archive than a bundle holds", self._where)
        if self._zlib.unused_data or self._waiting or self._stream.read(1):
            raise corrupt("something follows the end of the archive", self._where)

    def _next(self, most: int) -> bytes:
        """Return up to ``most`` bytes; nothing at the end of the stream, which must be a whole one."""
        while not self._zlib.eof:
            fed = self._waiting or self._stream.read(_PIECE)
            if not fed:
                raise corrupt("the archive is cut off", self._where)
            try:
                piece = self._zlib.decompress(fed, most)
            except zlib.error as error:
                raise corrupt(f"the archive is damaged: {error}", self._where) from error
            self._waiting = self._zlib.unconsumed_tail
            self._in += len(fed) - len(self._waiting)
            if piece:
                self._count(len(piece))
                return piece
        return b""

    def _count(self, size: int) -> None:
        self._out += size
        if self._out > self._total_bytes:
            raise corrupt(f"it unpacks to more than {self._total_bytes:,} bytes", self._where)
        if self._out > max(_RATIO_FROM_BYTES, self._ratio * self._in):
            raise corrupt(f"it unpacks to more than {self._ratio} times its size", self._where)
