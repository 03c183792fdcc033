"""The files that turn prompts into tokens, read at once: what is used is what was there when its hash was checked.

In: a folder, and perhaps the sha256 of what belongs to it. Out: :class:`TextFiles`. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.serving.subject import read_listed

TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
#: All that generation reads besides the graph and ``genai_config.json``.
TEXT_NAMES = (TOKENIZER, SETTINGS, TEMPLATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFiles:
    """What is in them, by name; a file that is not there has no entry."""

    directory: Path
    contents: Mapping[str, bytes]

    def locate(self, name: str) -> str:
        """Return where a file lies, for messages."""
        return str(self.directory / name)


def read_text_files(directory: Path, files: Mapping[str, str] | None = None) -> TextFiles:
    """Read them.

    Args:
        directory: Where they lie.
        files: The sha256 of those that belong to the model, by name: no other is looked at. None takes what is there.

    Raises:
        CorruptArtifact: one is not the one that is listed.
    """
    if files is None:
        found = {name: directory / name for name in TEXT_NAMES}
        contents = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
    else:
        listed = {name: read_listed(directory / name, files) for name in TEXT_NAMES}
        contents = {name: data for name, data in listed.items() if data is not None}
    return TextFiles(directory=directory, contents=contents)
