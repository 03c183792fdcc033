"""A history: one recording a line, the newest last, in a file that only grows.

In and out: :class:`~bench.recordings.recording.Recording`. To forget entries, delete their lines. Must not import a
runtime.
"""

from __future__ import annotations

from pathlib import Path

from bench.recordings.recording import Recording, decode_recording, encode_recording
from runtimes.atomic import append_bytes
from runtimes.errors import CorruptArtifact, UsageError

_CUT_CURE = "delete its last line: it was not written to its end"


def append_history(path: Path, recording: Recording) -> None:
    """Add a recording; the file is made if it is not there.

    Raises:
        CorruptArtifact: the last entry is cut off, so that another would be glued to it.
        OutputError: no room, no permission or no such place; the file keeps what it had.
    """
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            stream.seek(-1, 2)
            if stream.read() != b"\n":
                raise CorruptArtifact("the history's last entry is cut off", where=str(path), cure=_CUT_CURE)
    append_bytes(path, encode_recording(recording) + b"\n")


def read_history(path: Path) -> tuple[Recording, ...]:
    """Read every entry, the oldest first.

    Raises:
        UsageError: there is no such file.
        CorruptArtifact: it is empty, or an entry is cut off, damaged or of another schema; the message has its line.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(
            "there is no such history", where=str(path), cure="make one: `stepdown bench --history`"
        ) from error
    if not content.strip():
        raise CorruptArtifact("the history is empty", where=str(path), cure="add to it: `stepdown bench --history`")
    if not content.endswith(b"\n"):
        raise CorruptArtifact("the history's last entry is cut off", where=str(path), cure=_CUT_CURE)
    return tuple(
        decode_recording(line, where=f"{path}:{number}") for number, line in enumerate(content.splitlines(), start=1)
    )
