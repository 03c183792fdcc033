"""What a compressed checkpoint asks of export: the last word of its recipe, where the user says nothing else.

In: MODEL as the user named it. Out: plain data of its ``stepdown.json``. Must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from exporter.options import PRECISIONS_OF
from runtimes.errors import UnsupportedModel

_RECORD = "stepdown.json"


def read_export_hints(model: str) -> dict[str, str]:
    """Return the options that a checkpoint asks for, by name; empty where it asks for none.

    Raises:
        UnsupportedModel: its record cannot be read.
    """
    path = Path(model).expanduser() / _RECORD
    if not path.is_file():
        return {}
    try:
        hints = json.loads(path.read_text(encoding="utf-8")).get("export", {})
        return {str(name): str(value) for name, value in hints.items()}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise UnsupportedModel(
            f"the record cannot be read: {error}", where=str(path), cure="write the checkpoint again"
        ) from error


def choose_precision(hint: str | None, targets: Sequence[str]) -> str:
    """Return the precision nearest to the hint that every target has; ``auto`` without one."""
    wider = ["int8"] if hint is not None and hint.startswith("int8") else []
    wanted = [hint, *wider] if hint is not None else []
    return next((word for word in wanted if all(word in PRECISIONS_OF[target] for target in targets)), "auto")
