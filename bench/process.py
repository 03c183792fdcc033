"""A subject in a process of its own, as the measuring process sees it: requests, replies, time-outs, crashes.

In: a :class:`~bench.subject.SubjectSpec`. Out: what the worker (bench/worker.py) answers. Must not import a runtime.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.recording import OpTime
from bench.subject import SubjectSpec
from runtimes import errors
from runtimes.artifact import TensorSpec
from runtimes.errors import StepdownError, SubjectFailed

# Long enough for a large model on a slow disk, short enough not to hold a job for an hour.
TIMEOUT_S = 120.0
# A process whose reply channel is closed is ending; so long it may take.
_END_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What opening told: inputs and outputs, time from file to session, and the memory that took."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    load_ns: int
    load_memory_bytes: int


class SubjectProcess:
    """One subject, running. Use it as a context manager: leaving it ends the process, whatever that is doing.

    Between two answers the process is stopped (SIGSTOP, on Linux) unless ``stops`` is False. Its idle threads would
    spin on, for longer than any pause one would make, and take the processor from the subject whose turn it is.

    Starting does not wait, so that several can start side by side; :meth:`open` does. Every method raises
    SubjectFailed where the process crashed or did not answer in time, and the error that the subject itself reported.
    """

    def __init__(self, spec: SubjectSpec, *, timeout_s: float = TIMEOUT_S, stops: bool = True) -> None:
        self.spec = spec
        # Elsewhere a stopped worker would outlive a parent that is killed (bench/worker.py: end_with_parent).
        self._stops = stops and sys.platform == "linux"
        self._timeout_s = timeout_s
        self._unread = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        # -P: a folder called bench in the user's working directory must not be taken for ours.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Device 0 is then what NVML calls so too (bench/gpu.py); CUDA's own order is by speed.
            env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ},
            # A Ctrl-C at the terminal is for the parent, which then ends its workers.
            start_new_session=True,
        )
        # If it is gone already, whoever asks it first is told how.
        with suppress(SubjectFailed):
            self._send({**asdict(spec), "model": str(spec.model.resolve())})

    @property
    def pid(self) -> int:
        """The process, for whoever watches it from outside."""
        return self._process.pid

    def open(self) -> Opened:
        """Open the model, anew if it is open, and wait until that is done."""
        told = self._ask("open")
        return Opened(
            inputs=tuple(map(_read_spec, told["inputs"])),
            outputs=tuple(map(_read_spec, told["outputs"])),
            load_ns=told["load_ns"],
            load_memory_bytes=told["load_memory_bytes"],
        )

    def prepare(self, feeds: Path) -> None:
        """Make the arrays of an ``.npz`` file, one for each input, what all later runs take."""
        self._ask("prepare", str(feeds.resolve()))

    def warm_up(self, seconds: float) -> tuple[int, ...]:
        """Run until the speed is stable or about ``seconds`` have passed; return the nanoseconds of every run."""
        return tuple(self._ask("warm_up", seconds)["ns"])

    def run_block(self, runs: int, *, discard: int, pause_s: float) -> tuple[int, ...]:
        """Pause, run ``discard`` times, then return the nanoseconds of each of ``runs`` runs."""
        return tuple(self._ask("run_block", runs, discard, pause_s)["ns"])

    def answer(self, out: Path) -> None:
        """Run once and write every output into an ``.npz`` file."""
        self._ask("answer", str(out.resolve()))

    def run_streams(self, streams: int, seconds: float) -> tuple[int, int]:
        """Run from ``streams`` threads at once for ``seconds``; return how many runs finished, in how many ns."""
        told = self._ask("run_streams", streams, seconds)
        return told["runs"], told["ns"]

    def peak_memory_bytes(self) -> int:
        """Return the most memory that the process has held."""
        return int(self._ask("peak_memory")["bytes"])

    def profile_ops(self, runs: int) -> tuple[OpTime, ...]:
        """Return the mean time of each operator over ``runs`` runs, as the runtime's profiler tells it; no shape."""
        return tuple(OpTime(**told) for told in self._ask("profile_ops", runs)["ops"])

    def close(self) -> None:
        """End the process. There is nothing for it to save, and a polite end takes longer than a round should."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # With all that it started, such as a compiler's workers: it leads a session, so a group, of its own.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, what: str, *arguments: object) -> Mapping[str, Any]:
        self._signal("SIGCONT")
        self._send({"do": what, "with": arguments})
        answer = json.loads(self._read_line(what))
        self._signal("SIGSTOP")
        if "error" in answer:
            raise _rebuild_error(answer["error"], self.spec.label)
        reply: Mapping[str, Any] = answer["reply"]
        return reply

    def _signal(self, name: str) -> None:
        if self._stops:
            self._process.send_signal(signal.Signals[name])

    def _send(self, document: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._explain_crash("before it was asked") from error

    def _read_line(self, doing: str) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise SubjectFailed(
                    f"it did not answer within {self._timeout_s:g} s (doing: {doing})",
                    where=self.spec.label,
                    cure="measure smaller shapes, allow more with --timeout, or leave it out",
                )
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise self._explain_crash(f"doing: {doing}")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _explain_crash(self, doing: str) -> SubjectFailed:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        said = f"; its last words: {lines[-1].strip()[:300]}" if lines else ""
        return SubjectFailed(
            f"its process ended ({how}, {doing}){said}",
            where=self.spec.label,
            cure="see whether `stepdown run` does the same; a SIGKILL is mostly a lack of memory",
        )


def _read_spec(told: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=told["name"], dtype=told["dtype"], shape=tuple(told["shape"]))


def _rebuild_error(told: Mapping[str, Any], label: str) -> StepdownError:
    """Return the error that the worker raised, as the class it was there; ``kind`` is a name of runtimes.errors."""
    kind: type[StepdownError] = getattr(errors, told["kind"])
    return kind(told["what"], where=told["where"] or label, cure=told["cure"])
