"""Calls ``stepdown lint`` as a user does. In: an ONNX file. Out: the document it prints, errors included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from runtimes.errors import UnsupportedModel


def lint(model: Path, *options: str) -> dict[str, Any]:
    """Lint ``model`` for TensorRT and return the document: ``findings``, with ``--fix`` ``fixed``, or ``error``.

    Raises:
        UnsupportedModel: it ended without a document.
    """
    command = str(Path(sys.executable).with_name("stepdown"))
    done = subprocess.run(
        [command, "lint", str(model), "--for", "tensorrt", "--json", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UnsupportedModel(f"stepdown lint ended with {done.returncode}: {said}", where=str(model)) from error
    return document
