"""Calls ``stepdown lint`` as a user does. In: an ONNX file. Out: the document it prints, errors included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def lint(model: Path, *options: str) -> dict[str, Any]:
    """Lint ``model`` for TensorRT and return the document: ``findings``, with ``--fix`` ``fixed``, or ``error``."""
    command = str(Path(sys.executable).with_name("stepdown"))
    done = subprocess.run(
        [command, "lint", str(model), "--for", "tensorrt", "--json", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"error": {"kind": "Crash", "what": f"stepdown lint ended with {done.returncode}: {said}"}}
    return document
