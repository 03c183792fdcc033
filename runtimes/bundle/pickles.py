"""Finds a pickle that would run something, under whatever name and protocol, without running any of it.

In: a file. Out: whether Python's ``pickle`` would look up a name in it: nothing is run before that. Instructions are
stepped over by their length alone, so that what ``pickle`` takes is never taken for less; a file that is none ends at
its first byte that is no instruction. Must not import ``pickle``, nor a runtime.

Source: Lib/pickletools.py of CPython, which describes every instruction.
"""

from __future__ import annotations

import mmap
import pickletools
import re
from collections.abc import Iterator
from pathlib import Path

# Steps that a reader takes before it calls a file a pickle: weights go wrong at the first few.
_MAX_STEPS = 1 << 20
_OPCODES = {opcode.code.encode("latin-1")[0]: opcode for opcode in pickletools.opcodes}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# Instructions that name a thing of a module, in two lines. Extension codes name only what a program registered.
_NAMING = frozenset({"GLOBAL", "INST"})
_NAMES = re.compile(rb"[^\W\d][\w.]*\r?\n[^\W\d][\w.]*\r?\n")
# What leaves a text on the stack, or one that was there again: STACK_GLOBAL takes two.
_TEXTS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"GET", "BINGET", "LONG_BINGET", "DUP"}
)
# The other instructions of one byte: a run of them is one step. STOP is among them: pickles may follow each other.
_PLAIN = [
    code for code, opcode in _OPCODES.items() if opcode.arg is None and opcode.name not in {"STACK_GLOBAL", *_TEXTS}
]
_RUN = re.compile(b"[" + re.escape(bytes(_PLAIN)) + b"]+")


def holds_pickle(path: Path) -> bool:
    """Whether a file is a pickle that names what it would run, or goes on like one without an end."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        texts = 0
        for step, (at, stop) in enumerate(_walk(data)):
            name = _OPCODES[data[at]].name
            if name in _NAMING and _NAMES.fullmatch(data, at + 1, stop):
                return True
            if (name == "STACK_GLOBAL" and texts > 1) or step == _MAX_STEPS:
                return True
            texts += name in _TEXTS
    return False


def _walk(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield where each instruction begins and ends, up to the first byte that begins none."""
    at, size = 0, len(data)
    while at < size and data[at] in _OPCODES:
        run = _RUN.match(data, at)
        stop = run.end() if run is not None else _find_end(data, at)
        if stop is None or stop > size:
            return
        yield at, stop
        at = stop


def _find_end(data: mmap.mmap, at: int) -> int | None:
    """Return where an instruction ends; None where the file ends first."""
    kind = _OPCODES[data[at]].arg
    at += 1
    if kind is None:
        return at
    if kind.n >= 0:
        return at + kind.n
    if kind.n == pickletools.UP_TO_NEWLINE:
        return _find_line_end(data, at, lines=2 if _OPCODES[data[at - 1]].name in _NAMING else 1)
    counted = at + _LENGTH_BYTES[kind.n]
    return counted + int.from_bytes(data[at:counted], "little")


def _find_line_end(data: mmap.mmap, at: int, lines: int) -> int | None:
    for _ in range(lines):
        found = data.find(b"\n", at)
        if found < 0:
            return None
        at = found + 1
    return at
