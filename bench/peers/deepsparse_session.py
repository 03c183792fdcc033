"""DeepSparse 1.8, the last of its kind, in an environment of its own: a process beside ours that runs when it is told.

In: an ONNX file of operator set 13. Out: a :class:`~runtimes.protocol.Session` for one shape. The process times its own
runs; what passing a word to it and back takes is kept apart, so that the figure is the engine's alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.environment import open_environment
from bench.peers.stepdown_cli import run_measured
from runtimes.artifact import TensorSpec
from runtimes.errors import SubjectFailed
from runtimes.protocol import Tensors

# Its last release, and what that release runs with.
REQUIREMENTS = ("deepsparse==1.8.0", "sparsezoo==1.8.0", "onnx<1.15", "numpy<2")

# It ends when its input does, once the run in hand is done.
_END_SECONDS = 30.0

_SERVE = """
import json, sys, time
import numpy as np
from deepsparse import Engine

answer = sys.stdout
sys.stdout = sys.stderr
model, threads, given = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with np.load(given) as feeds:
    arrays = {name: feeds[name] for name in feeds.files}
batch = len(next(iter(arrays.values())))
shapes = [list(array.shape) for array in arrays.values()]
engine = Engine(model, batch_size=batch, num_cores=threads, input_shapes=shapes)
inputs = [arrays[name] for name in engine.input_names]
print(json.dumps({"outputs": list(engine.output_names)}), file=answer, flush=True)
for line in sys.stdin:
    start = time.perf_counter_ns()
    results = engine.run(inputs)
    elapsed = time.perf_counter_ns() - start
    if line.strip() == "save":
        np.savez(given + ".out.npz", **dict(zip(engine.output_names, results)))
    print(elapsed, file=answer, flush=True)
"""


# The exporter of its time: TorchScript, one operator for each step of the attention.
_EXPORT = """
import sys, warnings
import torch, transformers

warnings.simplefilter("ignore")
source, out = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(source, attn_implementation="eager", local_files_only=True).eval()
names = ("input_ids", "attention_mask", "token_type_ids")

class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, *given):
        return self.model(**dict(zip(names, given))).last_hidden_state

axes = {name: {0: "batch", 1: "sequence"} for name in (*names, "last_hidden_state")}
tokens = torch.ones(2, 16, dtype=torch.long)
torch.onnx.export(Encoder(), (tokens,) * 3, out, dynamo=False, opset_version=13, input_names=list(names),
                  output_names=["last_hidden_state"], dynamic_axes=axes)
"""


def export_encoder(checkpoint: Path, out: Path) -> None:
    """Write a BERT-like encoder as the ONNX that DeepSparse reads. Raises UnsupportedModel with what PyTorch said."""
    run_measured([sys.executable, "-c", _EXPORT, str(checkpoint), str(out)])


def open_deepsparse(cache: Path) -> Path:
    """Return the Python that has DeepSparse. Raises as :func:`~bench.peers.environment.open_environment`."""
    return open_environment(cache / "environment-deepsparse", REQUIREMENTS)


class DeepSparseSession:
    """A model at one shape. ``overhead_ns``: what talking to its process has taken so far, over all runs."""

    thread_safe = False

    def __init__(self, python: Path, model: Path, feeds: Tensors, *, threads: int) -> None:
        """Start the process and compile.

        Raises:
            SubjectFailed: the engine does not take the model; the message ends with what it said.
        """
        self.overhead_ns = 0
        self.inputs = tuple(
            TensorSpec(name=name, dtype=array.dtype.name, shape=array.shape) for name, array in feeds.items()
        )
        self._folder = tempfile.TemporaryDirectory(prefix="deepsparse.")
        self._given = Path(self._folder.name) / "feeds.npz"
        np.savez(self._given, allow_pickle=False, **feeds)
        self._log = (Path(self._folder.name) / "log").open("w+")
        self._process = subprocess.Popen(
            [str(python), "-c", _SERVE, str(model), str(threads), str(self._given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.outputs = tuple(
            TensorSpec(name=name, dtype="float32", shape=()) for name in json.loads(self._read())["outputs"]
        )

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once on the feeds it was opened with, and return every output by name."""
        del feeds
        self._ask("save")
        with np.load(self._given.with_name(self._given.name + ".out.npz")) as results:
            return {name: results[name] for name in results.files}

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Return a run on the feeds it was opened with."""
        del feeds
        return lambda: self._ask("run")

    def close(self) -> None:
        """End the process, by force where it does not end by itself. Closing again does nothing."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # A process that died has not read the last word.
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def _ask(self, word: str) -> None:
        start_ns = time.perf_counter_ns()
        if self._process.stdin is None or self._process.stdin.closed:
            raise SubjectFailed("its process takes no words: it has ended", where="DeepSparse")
        try:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._end() from error
        elapsed_ns = int(self._read())
        self.overhead_ns += time.perf_counter_ns() - start_ns - elapsed_ns

    def _read(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise self._end()
        return line

    def _end(self) -> SubjectFailed:
        """Close, and return the error with the last words of the process."""
        self._log.seek(0)
        said = self._log.read().strip()[-300:]
        self.close()
        return SubjectFailed(f"its process ended: {said}", where="DeepSparse")
