"""A model that generates in a process of its own, as the measuring process sees it.

In: a :class:`~bench.generation.subject.GenerationSpec`. Out: what the worker (bench/generation/worker.py) answers. Must
not import a runtime.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import bench
from bench.generation.subject import GenerationSpec
from bench.processes.worker_process import TIMEOUT_S, WorkerProcess

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One run: nanoseconds to the first token and for each after it, and the tokens [streams][new tokens]."""

    first_ns: int
    step_ns: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Memory of the process: now, and the most it ever held."""

    resident_bytes: int
    peak_bytes: int


class GenerationProcess(WorkerProcess):
    """One model; see :class:`~bench.processes.worker_process.WorkerProcess` for its life and what every call raises."""

    def __init__(self, spec: GenerationSpec, *, timeout_s: float = TIMEOUT_S) -> None:
        self.spec = spec
        greeting = {"label": spec.label, "engine": spec.engine, "threads": spec.threads}
        super().__init__(
            [str(spec.python or sys.executable), "-P", "-m", "bench.generation.worker"],
            {**greeting, "model": str(spec.model.resolve())},
            label=spec.label,
            timeout_s=timeout_s,
            # A peer's environment has none of ours.
            environment={"PYTHONPATH": str(Path(bench.__file__).resolve().parents[1])} if spec.python else None,
        )

    def open(self) -> int:
        """Open the model and wait until that is done; return the memory held then, in bytes."""
        return int(self.ask("open")["resident_bytes"])

    def generate(self, prompts: Rows, new_tokens: int) -> Generated:
        """Generate ``new_tokens`` behind each prompt; they are of one length."""
        told = self.ask("generate", [list(map(int, row)) for row in prompts], new_tokens)
        return Generated(
            first_ns=told["first_ns"], step_ns=tuple(told["step_ns"]), tokens=tuple(map(tuple, told["tokens"]))
        )

    def memory(self) -> Held:
        """Return what is held now, the cache of the last run included."""
        told = self.ask("memory")
        return Held(resident_bytes=told["resident_bytes"], peak_bytes=told["peak_bytes"])
