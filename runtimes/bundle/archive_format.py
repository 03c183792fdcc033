"""The bytes of a bundle's archive, to which both sides hold: gzip without a name or a clock, and plain ustar headers.

A reader that makes the header it expects and compares has no header to interpret: links, devices, sparse files, PAX
records, long names, other owners and modes are all simply other bytes. Must not import anything but the standard
library and ``runtimes``.

Sources: RFC 1952 (gzip); POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import re

from runtimes.bundle.strict_json import corrupt

SIGNATURES_NAME = "signatures.json"
BLOB_FOLDER = "blobs/sha256/"
BLOCK = 512
# Two empty blocks end a tar; nothing is padded to a tape's records.
END = bytes(2 * BLOCK)
# ustar has eleven octal digits for a size.
MAX_MEMBER_BYTES = 8**11 - 1
# Deflate, no flags (so no name, comment or extra field), no time, slowest algorithm, no system: RFC 1952, 2.3.1.
GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255])

_KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device",
    b"5": "a folder", b"6": "a pipe", b"7": "a contiguous file", b"g": "a PAX record", b"x": "a PAX record",
    b"S": "a sparse file", b"L": "a GNU long name", b"K": "a GNU long link",
}  # fmt: skip
_OCTAL = re.compile(rb"[0-7]{11}\0")


def make_header(name: str, size: int) -> bytes:
    """Return the header block of a member: a plain file, mode 0644, nobody's, without a time.

    Args:
        name: At most 100 ASCII characters.
        size: In bytes, at most ``MAX_MEMBER_BYTES``.
    """
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, user, group
        b"%011o\0" % size + b"%011o\0" % 0,  # size, time
        b" " * 8,  # the checksum counts as spaces while it is made
        b"0".ljust(101, b"\0"),  # a plain file that links to nothing
        b"ustar\x0000".ljust(255, b"\0"),  # no names of user and group, no device numbers, no prefix
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def read_header(block: bytes) -> tuple[str, int]:
    """Return the name and the size of a header block that is exactly what :func:`make_header` gives for them.

    Raises:
        CorruptArtifact: it is anything else.
    """
    raw_name, raw_size, kind = block[:100].rstrip(b"\0"), block[124:136], block[156:157]
    shown = f"member {raw_name[:80].decode('ascii', 'backslashreplace')!r}"
    if kind in _KINDS:
        raise corrupt(f"it is {_KINDS[kind]}; a bundle holds plain files only", shown)
    if not raw_name.isascii() or _OCTAL.fullmatch(raw_size) is None:
        raise corrupt("its header is not a bundle's", shown)
    name, size = raw_name.decode("ascii"), int(raw_size[:-1], 8)
    if make_header(name, size) != block:
        raise corrupt("its header is not a bundle's", shown)
    return name, size


def padding(size: int) -> int:
    """Return how many zero bytes fill the last block of a member."""
    return -size % BLOCK
