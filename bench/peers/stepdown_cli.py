"""Calls stepdown as a user does, by its command line: the bench stands below the exporter and may not import it.

In: a model and texts. Out: a float ONNX file, an exported directory, or the cost of a calibration.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.build_once import Built
from runtimes.errors import UnsupportedModel

# Plain float, as every peer's tool would get it: traced, with no graph pass of ours.
_TRACE = """
import sys
from pathlib import Path
from exporter.source import open_source
from exporter.tracing.trace import trace
trace(open_source(sys.argv[1]), Path(sys.argv[2]))
"""
# A small process between: Linux counts what a parent held when it started a child into the child's peak.
_LAUNCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - start
print(json.dumps({"code": code, "seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a program took: wall time in seconds and its peak resident memory in bytes."""

    seconds: float
    peak_bytes: int


def trace_float(model: Path, directory: Path) -> Path:
    """Write the model as plain float ONNX into ``directory``, its tokenizer beside it, unless it is there."""
    path = directory / "model.onnx"
    if not path.is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".trace.") as folder:
            traced = Path(folder) / "float"
            traced.mkdir()
            run_measured([sys.executable, "-c", _TRACE, str(model), str(traced)])
            traced.rename(directory)
    return path


def export(
    model: Path | str,
    data: Path,
    directory: Path,
    *,
    threads: int,
    target: str = "onnxruntime",
    options: Sequence[str] = (),
) -> Built:
    """Export with default choices, but for ``options``, and return the directory and the time it took.

    Raises as :func:`run_measured`.
    """
    command = ["export", str(model), "--target", target, "--calibration-data", str(data), *options]
    command += ["--threads", str(threads), "-o", str(directory), "--force"]
    cost = call(*command)
    return Built(path=directory, seconds=cost.seconds)


def calibrate(model: Path, texts: Path, samples: int, out: Path) -> Cost:
    """Collect statistics of ``samples`` texts and return what it took."""
    command = ["calibrate", str(model), "--calibration-data", str(texts), "--samples", str(samples)]
    return call(*command, "-o", str(out), "--force")


def call(*words: str) -> Cost:
    """Call one verb and return what it took. Raises as :func:`run_measured`."""
    return run_measured([_find_command(), *words])


def _find_command() -> str:
    return str(Path(sys.executable).with_name("stepdown"))


def run_measured(command: Sequence[str]) -> Cost:
    """Run a program to its end and return its time and peak memory.

    Raises:
        UnsupportedModel: it failed; the message ends with what it said.
    """
    done = subprocess.run([sys.executable, "-c", _LAUNCH, *command], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    if figures["code"] != 0:
        reason = done.stderr.strip()[-600:]
        # A program given as text is no name.
        words = [word for word in command[1:4] if "\n" not in word]
        raise UnsupportedModel(f"it ended with {figures['code']}: {reason}", where=" ".join(words))
    # Linux counts kibibytes, macOS bytes (getrusage(2)).
    return Cost(seconds=figures["seconds"], peak_bytes=figures["peak"] * (1 if sys.platform == "darwin" else 1024))
