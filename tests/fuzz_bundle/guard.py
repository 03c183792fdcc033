"""Watches what a target does to the machine: it may write in its room, read what is named, and start nothing.

In: a folder. Out: an :class:`Escape` at the moment something else is touched. Python's own audit events (PEP 578) say
what is about to happen, whatever module asks for it.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events whose arguments begin with the paths that they change.
_CHANGES = {
    "os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
    "os.chmod": 1, "os.chown": 1, "os.utime": 1, "shutil.rmtree": 1, "shutil.copyfile": 2, "shutil.move": 2,
}  # fmt: skip
_FORBIDDEN = (
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "ctypes.dlopen", "pickle.",
    "marshal.loads", "socket.", "code.__new__", "winreg.", "webbrowser.",
)  # fmt: skip


_PYTHON = tuple(os.path.realpath(prefix) + os.sep for prefix in (sys.prefix, sys.base_prefix))


class Escape(BaseException):
    """Something outside of the room was touched; no handler of ours takes it for a bad bundle."""


class _Watch:
    room: str | None = None


_watch = _Watch()


@contextmanager
def watching(room):
    """Let nothing happen outside of a folder for as long as the block runs."""
    _install()
    _watch.room = os.path.realpath(room) + os.sep
    try:
        yield
    finally:
        _watch.room = None


def _install():
    if not getattr(_install, "done", False):
        sys.addaudithook(_judge)
        _install.done = True


def _judge(event, arguments):
    room = _watch.room
    if room is None:
        return
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, int) and not _inside(path, room) and not _is_import(path, flags):
            _escape(f"{'writes' if flags & _WRITES else 'reads'} {path!r}")
    elif event in _CHANGES:
        for path in arguments[: _CHANGES[event]]:
            if not isinstance(path, int) and not _inside(path, room):
                _escape(f"{event} {path!r}")
    elif event.startswith(_FORBIDDEN):
        _escape(f"{event} {arguments!r}"[:300])


def _inside(path, room):
    found = os.path.realpath(os.fsdecode(path))
    return found.startswith(room) or found + os.sep == room


def _is_import(path, flags):
    """Whether Python reads a module of its own, as it does at its first use."""
    found = os.path.realpath(os.fsdecode(path))
    return not flags & _WRITES and found.startswith(_PYTHON) and found.endswith((".py", ".pyc"))


def _escape(what):
    _watch.room = None  # what reports the escape may touch what it likes
    raise Escape(what)


def list_outside(base: Path, room: Path):
    """Return everything below a folder that is not in the room."""
    return sorted(path for path in base.rglob("*") if path != room and room not in path.parents)
