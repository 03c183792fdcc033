"""What a GGUF file says of where it comes from and under which licence, kept beside the model that it becomes.

In: the file and its metadata. Out: ``gguf.json``. Must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtimes.artifact import hash_file
from runtimes.atomic import write_text

#: It travels with the model into exported directories and bundles.
ORIGIN_NAME = "gguf.json"
LICENCE = "license"
_GENERAL = "general."
# A licence may stand there as a whole; the file is for names, people and places.
_LONGEST = 1000


def write_origin(path: Path, metadata: Mapping[str, Any], directory: Path) -> None:
    """Write the sha256 of the file, and what its metadata says in general (``general.name``, ``general.license``)."""
    told = {name.removeprefix(_GENERAL): value for name, value in metadata.items() if name.startswith(_GENERAL)}
    short = {name: value for name, value in told.items() if _is_short(value)}
    document = {"sha256": hash_file(path), "general": short}
    write_text(directory / ORIGIN_NAME, json.dumps(document, indent=2, sort_keys=True) + "\n")


def _is_short(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value) and len(str(value)) <= _LONGEST
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= _LONGEST)
