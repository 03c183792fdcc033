"""A worker process as the measuring process sees it: requests, replies, time-outs, crashes.

In: a command that serves requests (bench/processes/serve.py). Out: what it answers. Must not import a runtime.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from runtimes import errors
from runtimes.errors import StepdownError, SubjectFailed

# Long enough for a large model on a slow disk, short enough not to hold a job for an hour.
TIMEOUT_S = 120.0
# How idle threads wait is each runtime's own choice: what was set for another thing slows some down more than others.
# llama.cpp made 45 tokens a second with OMP_WAIT_POLICY=PASSIVE, and 202 without.
_WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
# A process whose reply channel is closed is ending; so long it may take.
_END_S = 5.0


class WorkerProcess:
    """One subject, running. Use it as a context manager: leaving it ends the process, whatever that is doing.

    Between two answers the process is stopped (SIGSTOP, on Linux) unless ``stops`` is False. Its idle threads would
    spin on, for longer than any pause one would make, and take the processor from the subject whose turn it is.

    Starting does not wait, so that several can start side by side.
    """

    def __init__(
        self,
        command: Sequence[str],
        greeting: Mapping[str, object],
        *,
        label: str,
        timeout_s: float = TIMEOUT_S,
        stops: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            command: What to run.
            greeting: The first line that it reads: what it is to be.
            label: The subject's name in errors.
            timeout_s: How long it may take over one answer.
            stops: Whether it is stopped while it is not asked.
            environment: Variables besides those of this process, of which it gets all but how idle threads wait.
        """
        self._label = label
        # Elsewhere a stopped worker would outlive a parent that is killed (bench/processes/serve.py: end_with_parent).
        self._stops = stops and sys.platform == "linux"
        self._timeout_s = timeout_s
        self._unread = b""
        self._is_closed = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**_inherit(), **(environment or {})},
            # A Ctrl-C at the terminal is for the parent, which then ends its workers.
            start_new_session=True,
        )
        # If it is gone already, whoever asks it first is told how.
        with suppress(SubjectFailed):
            self._send(greeting, "start")

    @property
    def pid(self) -> int:
        """The process, for whoever watches it from outside."""
        return self._process.pid

    def ask(self, what: str, *arguments: object) -> Mapping[str, Any]:
        """Return the answer to one request.

        Raises:
            SubjectFailed: the process crashed or did not answer in time; besides, what the subject itself raised.
        """
        self._signal("SIGCONT")
        self._send({"do": what, "with": arguments}, what)
        answer = json.loads(self._read_line(what))
        self._signal("SIGSTOP")
        if "error" in answer:
            raise _rebuild_error(answer["error"], self._label)
        reply: Mapping[str, Any] = answer["reply"]
        return reply

    def close(self) -> None:
        """End the process. There is nothing for it to save, and a polite end takes longer than a round should.

        Once: whoever has its number later is another.
        """
        if self._is_closed:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # With all that it started, such as a compiler's workers: it leads a session, so a group, of its own.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._is_closed = True
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

    def _signal(self, name: str) -> None:
        if self._stops:
            self._process.send_signal(signal.Signals[name])

    def _send(self, document: Mapping[str, object], what: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._explain_crash(f"before it was asked to {what}") from error

    def _read_line(self, doing: str) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise SubjectFailed(
                    f"it did not answer within {self._timeout_s:g} s (doing: {doing})",
                    where=self._label,
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
            where=self._label,
            cure="see whether `stepdown run` does the same; a SIGKILL is mostly a lack of memory",
        )


def _rebuild_error(told: Mapping[str, Any], label: str) -> StepdownError:
    """Return the error that the worker raised, as the class it was there; ``kind`` is a name of runtimes.errors."""
    kind: type[StepdownError] = getattr(errors, told["kind"])
    return kind(told["what"], where=told["where"] or label, cure=told["cure"])


def _inherit() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _WAITING}
