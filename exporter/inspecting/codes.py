"""Weights that a compressed checkpoint stores packed, as ``stepdown.json`` describes them.

In: a checkpoint. Out: levels. Must not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.rounding.low_bit import BITS, Bits, unpack_levels
from runtimes.errors import UnsupportedModel
from runtimes.safetensors_file import StoredTensor

_RECORD = "stepdown.json"
_CODES = ".codes"


def read_described(path: Path) -> Mapping[str, Any]:
    """Return the descriptions of a checkpoint's modules by name; none where it is no compressed one.

    Raises:
        UnsupportedModel: its record cannot be read.
    """
    record = path / _RECORD
    if not record.is_file():
        return {}
    try:
        modules: Mapping[str, Any] = json.loads(record.read_text(encoding="utf-8"))["modules"]
        return dict(modules)
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "write the checkpoint again"
        raise UnsupportedModel(f"the record cannot be read: {error}", where=str(record), cure=cure) from error


def read_levels(tensor: StoredTensor, described: Mapping[str, Any]) -> tuple[NDArray[np.int8], Bits] | None:
    """Return the levels [rows, columns] behind packed codes and the bits of one; None for any other tensor.

    Raises:
        UnsupportedModel: the codes are not as long as their description says.
    """
    module = described.get(tensor.name.removesuffix(_CODES), {})
    if not tensor.name.endswith(_CODES) or module.get("form") not in BITS:
        return None
    bits = BITS[module["form"]]
    try:
        return unpack_levels(tensor.read_raw(), bits, int(module.get("inputs", module.get("width", 0)))), bits
    except ValueError as error:
        cure = "write the checkpoint again"
        raise UnsupportedModel(f"{tensor.name}: {error}", where=str(tensor.file), cure=cure) from error
