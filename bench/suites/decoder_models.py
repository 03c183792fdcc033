"""What the decoder suite measures, made once: checkpoints, exports at each precision, and what was found of them.

In: a folder to work in. Out: directories, and records that a later run need not make again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import assets
from bench.peers.stepdown_cli import run_measured
from bench.suites.compression_commands import Commands
from runtimes.artifact import MANIFEST_NAME, hash_file
from runtimes.atomic import write_text

#: Our artifacts, by the bits of their weights; 32 is plain ONNX Runtime's float with our graph.
PRECISIONS = {32: "fp32", 8: "weights-8", 4: "weights-4"}
# Weights are rounded to nearest or by what they do to texts, whichever is judged better, on so many of so many tokens.
_CALIBRATION = ("--samples", 64, "--max-length", 256)
# What is measured here must exist, and its loss is shown beside it.
_ANY_DROP = ("--max-drop", "50%")

_UNPACK = """
import sys
from pathlib import Path
from exporter.tracing.gguf import unpack_gguf
unpack_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """A folder of models, and how commands are called."""

    folder: Path
    commands: Commands

    def unpack(self) -> Path:
        """Return SmolLM2 as a checkpoint of float32, what its 4-bit blocks stand for."""
        checkpoint = self.folder / "smollm2"
        if not checkpoint.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".unpack.") as scratch:
                made = Path(scratch) / "made"
                run_measured([sys.executable, "-c", _UNPACK, str(assets.smollm2()), str(made)])
                made.rename(checkpoint)
        return checkpoint

    def export(self, checkpoint: Path, bits: int) -> Path:
        """Return the export of a checkpoint with weights of so many bits."""
        directory = self.folder / "exports" / f"{checkpoint.name}-{bits}"
        if not (directory / MANIFEST_NAME).is_file():
            directory.parent.mkdir(parents=True, exist_ok=True)
            data = () if bits == max(PRECISIONS) else ("--calibration-data", assets.english().train, *_CALIBRATION)
            words = ("--precision", PRECISIONS[bits], *data, *_ANY_DROP, "-o", directory, "--force")
            self.commands.run("export", checkpoint, *words)
        return directory

    def record(
        self, name: str, depends_on: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return what ``measure`` found, kept under ``name`` as long as it depends on the same."""
        path = self.folder / "records" / f"{name}.json"
        wanted = json.loads(json.dumps(depends_on))
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["depends_on"] == wanted:
                found: Mapping[str, Any] = kept["found"]
                return found
        self.commands.check_time()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Through JSON either way: a kept record and a new one are of the same types.
        document = json.loads(json.dumps({"depends_on": wanted, "found": measure()}))
        write_text(path, json.dumps(document) + "\n")
        measured: Mapping[str, Any] = document["found"]
        return measured


def name_export(directory: Path) -> str:
    """Return what tells one export from another of the same name: its manifest has the hash of every file."""
    return hash_file(directory / MANIFEST_NAME)


def find_folder(directory: Path) -> Path:
    """Return the folder of an export that generates."""
    return directory / "onnxruntime"
