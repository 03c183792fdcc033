"""What the decoder suite measures, made once: checkpoints, exports at each precision, and what was found of them.

In: a folder to work in. Out: directories, and records that a later run need not make again. A name carries the hash of
what a thing was made of, the bytes of its model and the words of its command: another model, another recipe, another
text is another folder. The exporter's own code is not in it: for a new exporter, take a new folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.assets import PlainTexts
from bench.machine.commit import find_commit
from bench.machine.description import describe_machine, fingerprint
from bench.peers.stepdown_cli import run_measured
from bench.suites.compression.commands import Commands
from runtimes.artifact import MANIFEST_NAME, hash_file, read_manifest, record_files
from runtimes.atomic import make_directory, write_text
from runtimes.errors import UnsupportedModel

#: The bits of the weights, by the word for ``--precision``.
BITS = {"fp32": 32, "weights-8": 8, "weights-4": 4, "int8-dynamic": 8, "int8-static": 8}
FLOAT = "fp32"
#: What every decoder is measured in: plain ONNX Runtime's float with our graph, and what is smaller.
PRECISIONS = (FLOAT, "int8-dynamic", "weights-8", "weights-4")
#: What is shown where the exporter makes it: INT8 with one scale for all activations may not survive outliers.
TRIED = ("int8-static",)
# Weights are rounded to nearest or by what they do to texts, whichever is judged better, on so many of so many tokens.
_CALIBRATION = ("--samples", 64, "--max-length", 256)
# What is measured here must exist, and its loss is shown beside it.
_ANY_DROP = ("--max-drop", "99%")
# Besides what a machine's fingerprint has: what generates, and what reads checkpoints and texts.
_PACKAGES = ("onnxruntime-genai", "transformers", "tokenizers")

_UNPACK = """
import sys
from pathlib import Path
from exporter.tracing.gguf import unpack_gguf
unpack_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
"""

_TRACE = """
import sys
from pathlib import Path
from exporter.onnxruntime.generation_files import write_generation_files
from exporter.source import open_source
from exporter.tracing.trace import trace
checkpoint, made = map(Path, sys.argv[1:])
traced = trace(open_source(str(checkpoint)), made)
write_generation_files(traced.artifact.path, checkpoint, made, traced.cache, max_length=traced.max_length)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """A folder of models, what they are made of, and how commands are called.

    ``gguf`` is the decoder that is measured, ``texts`` what it is calibrated, pruned and judged with.
    """

    folder: Path
    gguf: Path
    texts: PlainTexts
    commands: Commands

    def unpack(self) -> Path:
        """Return the decoder as a checkpoint of float32, what the blocks of its file stand for."""
        checkpoint = self.folder / f"{self.gguf.stem}-{_shorten(hash_file(self.gguf))}"
        self._make(checkpoint, _UNPACK, self.gguf)
        return checkpoint

    def trace(self, checkpoint: Path) -> Path:
        """Return a folder that generates with the graph as PyTorch's exporter wrote it, nothing of it fused by us."""
        directory = self.folder / "traced" / f"{checkpoint.name}-{_shorten(hash_folder(checkpoint))}"
        self._make(directory, _TRACE, checkpoint)
        return directory

    def _make(self, directory: Path, program: str, source: Path) -> None:
        """Let a program fill a folder, which is there whole or not at all, from a file or another folder."""
        if directory.is_dir():
            return
        make_directory(directory.parent)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".make.") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            run_measured([sys.executable, "-c", program, str(source), str(made)])
            made.rename(directory)

    def place_export(self, checkpoint: Path, precision: str) -> Path:
        """Return where the export of a checkpoint at a precision of :data:`BITS` is, once it is made."""
        data = "" if precision == FLOAT else hash_file(self.texts.train)
        made_of = (hash_folder(checkpoint), data, *map(str, (*_CALIBRATION, *_ANY_DROP, self.commands.threads)))
        return self.folder / "exports" / f"{checkpoint.name}-{precision}-{_shorten(*made_of)}"

    def place_compressed(self, checkpoint: Path, recipe: str, train: Path) -> Path:
        """Return where what a recipe makes of a checkpoint and a text is, once it is made."""
        text = (resources.files("compression") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
        made_of = (text, hash_folder(checkpoint), hash_file(train), hash_file(self.texts.held_out))
        return self.folder / f"{checkpoint.name}-{recipe}-{_shorten(*made_of)}"

    def export(self, checkpoint: Path, precision: str) -> Path:
        """Return the export of a checkpoint at a precision of :data:`BITS`.

        Raises:
            UnsupportedModel: the exporter does not make it; the message is what it said.
        """
        directory = self.place_export(checkpoint, precision)
        if not (directory / MANIFEST_NAME).is_file():
            make_directory(directory.parent)
            data = () if precision == FLOAT else ("--calibration-data", self.texts.train, *_CALIBRATION)
            words = ("--precision", precision, *data, *_ANY_DROP, "-o", directory, "--force")
            self.commands.run("export", checkpoint, *words)
        return directory

    def try_export(self, checkpoint: Path, precision: str) -> tuple[Path, str]:
        """Return an export, and nothing; or, where the exporter does not make it, where it would be, and why.

        What was refused is tried again at another commit.
        """
        directory = self.place_export(checkpoint, precision)
        if (directory / MANIFEST_NAME).is_file():
            return directory, ""

        def make() -> Mapping[str, str]:
            try:
                self.export(checkpoint, precision)
            except UnsupportedModel as error:
                return {"why": error.what}
            return {"why": ""}

        refused = self.record(f"made-{directory.name}", {"commit": find_commit(Path(__file__).parent)}, make)["why"]
        # Where it was made once and is gone, it can be made again.
        return (directory, refused) if refused else (self.export(checkpoint, precision), "")

    def compress(self, checkpoint: Path, recipe: str, *, every: int = 1) -> Path:
        """Return what a recipe that comes with stepdown makes of a checkpoint and one paragraph in ``every``."""
        train = self.thin_out(every)
        directory = self.place_compressed(checkpoint, recipe, train)
        if not directory.is_dir():
            words = ("--data", train, "--held-out", self.texts.held_out, "-o", directory)
            self.commands.run("compress", checkpoint, "--recipe", recipe, *words)
        return directory

    def thin_out(self, every: int) -> Path:
        """Return the training text, or a copy of one paragraph (a line) in ``every``: of all kinds of documents."""
        if every == 1:
            return self.texts.train
        thinned = self.folder / "texts" / f"{self.texts.train.stem}-{every}.txt"
        make_directory(thinned.parent)
        lines = self.texts.train.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(thinned, "".join(lines[::every]))
        return thinned

    def record(
        self, name: str, depends_on: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Return what ``measure`` found, kept under ``name`` as long as it depends on the same, on the same machine.

        The machine is its processor, the threads that are used, and the versions of what runs.
        """
        path = self.folder / "records" / f"{name}.json"
        wanted = json.loads(json.dumps({**depends_on, "machine": _describe_machine(self.commands.threads)}))
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["depends_on"] == wanted:
                found: Mapping[str, Any] = kept["found"]
                return found
        self.commands.check_time()
        make_directory(path.parent)
        # Through JSON either way: a kept record and a new one are of the same types.
        document = json.loads(json.dumps({"depends_on": wanted, "found": measure()}))
        write_text(path, json.dumps(document) + "\n")
        measured: Mapping[str, Any] = document["found"]
        return measured


@cache
def hash_folder(directory: Path) -> str:
    """Return one sha256 over the names and bytes of all files of a checkpoint, which no run changes."""
    told = [(one.path, one.sha256) for one in record_files(directory)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def name_export(directory: Path) -> str:
    """Return what tells one export from another of the same name: its manifest has the hash of every file."""
    return hash_file(directory / MANIFEST_NAME)


def find_folder(directory: Path) -> Path:
    """Return the folder of an export that generates."""
    return directory / "onnxruntime"


def name_shipped(directory: Path) -> str:
    """Return the name of the candidate that an export ships."""
    steps = read_manifest(directory).steps
    return next(str(step["candidate"]) for step in steps if step["step"] == "lower")


def _shorten(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _describe_machine(threads: int) -> Mapping[str, str]:
    packages = {name: version(name) for name in _PACKAGES}
    return {"fingerprint": fingerprint(describe_machine(threads)), **packages}
