"""A subject in a process of its own, as the measuring process sees it.

In: a :class:`~bench.subjects.subject.SubjectSpec`. Out: what the worker (bench/subjects/worker.py) answers. Must not
import a runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.processes.worker_process import TIMEOUT_S, WorkerProcess
from bench.recordings.recording import OpTime
from bench.subjects.subject import SubjectSpec
from runtimes.artifact import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What opening told: inputs and outputs, time from file to session, and the memory that took."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    load_ns: int
    load_memory_bytes: int


class SubjectProcess(WorkerProcess):
    """One subject, running; its life and what every call raises are those of a ``WorkerProcess``.

    Starting does not wait; :meth:`open` does.
    """

    def __init__(self, spec: SubjectSpec, *, timeout_s: float = TIMEOUT_S, stops: bool = True) -> None:
        self.spec = spec
        super().__init__(
            # -P: a folder called bench in the user's working directory must not be taken for ours.
            [sys.executable, "-P", "-m", "bench.subjects.worker"],
            {**asdict(spec), "model": str(spec.model.resolve())},
            label=spec.label,
            timeout_s=timeout_s,
            stops=stops,
            # Device 0 is then what NVML calls so too (bench/machine/gpu.py); CUDA's own order is by speed.
            environment={"CUDA_DEVICE_ORDER": os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")},
        )

    def open(self) -> Opened:
        """Open the model, anew if it is open, and wait until that is done."""
        told = self.ask("open")
        return Opened(
            inputs=tuple(map(_read_spec, told["inputs"])),
            outputs=tuple(map(_read_spec, told["outputs"])),
            load_ns=told["load_ns"],
            load_memory_bytes=told["load_memory_bytes"],
        )

    def prepare(self, feeds: Path) -> None:
        """Make the arrays of an ``.npz`` file, one for each input, what all later runs take."""
        self.ask("prepare", str(feeds.resolve()))

    def warm_up(self, seconds: float) -> tuple[int, ...]:
        """Run until the speed is stable or about ``seconds`` have passed; return the nanoseconds of every run."""
        return tuple(self.ask("warm_up", seconds)["ns"])

    def run_block(self, runs: int, *, discard: int, pause_s: float) -> tuple[int, ...]:
        """Pause, run ``discard`` times, then return the nanoseconds of each of ``runs`` runs."""
        return tuple(self.ask("run_block", runs, discard, pause_s)["ns"])

    def answer(self, out: Path) -> None:
        """Run once and write every output into an ``.npz`` file."""
        self.ask("answer", str(out.resolve()))

    def run_streams(self, streams: int, seconds: float) -> tuple[int, int]:
        """Run from ``streams`` threads at once for ``seconds``; return how many runs finished, in how many ns."""
        told = self.ask("run_streams", streams, seconds)
        return told["runs"], told["ns"]

    def peak_memory_bytes(self) -> int:
        """Return the most memory that the process has held."""
        return int(self.ask("peak_memory")["bytes"])

    def profile_ops(self, runs: int) -> tuple[OpTime, ...]:
        """Return the mean time of each operator over ``runs`` runs, as the runtime's profiler tells it; no shape."""
        return tuple(OpTime(**told) for told in self.ask("profile_ops", runs)["ops"])


def _read_spec(told: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=told["name"], dtype=told["dtype"], shape=tuple(told["shape"]))
