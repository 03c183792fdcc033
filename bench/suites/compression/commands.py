"""Calls ``stepdown`` as a user does, until a suite's time is up: what was begun then goes on in the next run.

In: the words of a command. Out: its JSON document.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.errors import Inconclusive, UnsupportedModel

# A training keeps its state when it is interrupted; more than this it does not need.
_LONGEST_GOODBYE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Runs commands; ``until`` is when to stop, on :func:`time.monotonic`'s clock, None for never.

    ``train_threads`` are those of ``compress``, None for as many as all else has: two runs beside each other, of one
    thread each, train more than one run of two.
    """

    threads: int = 2
    train_threads: int | None = None
    until: float | None = None

    def check_time(self) -> None:
        """Raise Inconclusive where the time is up."""
        if self.until is not None and time.monotonic() >= self.until:
            raise _say_out_of_time()

    def run(self, *words: object) -> dict[str, Any]:
        """Run ``stepdown`` with ``words``, its progress on our stderr, and return what it prints with ``--json``.

        Raises:
            UnsupportedModel: it failed; the message is what it said.
            Inconclusive: the time is up; it was interrupted.
        """
        self.check_time()
        command = [str(Path(sys.executable).with_name("stepdown")), *map(str, words), "--json"]
        threads = self.train_threads or self.threads if words[0] == "compress" else self.threads
        process = subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True)
        left = None if self.until is None else max(0.0, self.until - time.monotonic())
        try:
            said, _ = process.communicate(timeout=left)
        except subprocess.TimeoutExpired as error:
            raise _say_out_of_time() from error
        finally:
            _end(process)
        return read_answer(said, process.returncode, str(words[0]))


def read_answer(said: str, code: int, verb: str) -> dict[str, Any]:
    """Return the document of a command that ended with ``code``.

    Raises:
        UnsupportedModel: it failed; the message is the document's, or that there is none.
    """
    try:
        document: dict[str, Any] = json.loads(said)
    except json.JSONDecodeError as error:
        raise UnsupportedModel(f"it ended with {code} and without an answer", where=f"stepdown {verb}") from error
    if code != 0:
        told = document["error"]
        what = " ".join(f"{told['where'] or ''}: {told['what']}".removeprefix(": ").split())
        raise UnsupportedModel(what, where=f"stepdown {verb}", cure=told["cure"])
    return document


def _end(process: subprocess.Popen[str]) -> None:
    """See that it is gone, whatever ended us."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_LONGEST_GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _say_out_of_time() -> Inconclusive:
    return Inconclusive("the time given is up", where="--minutes", cure="run it again: what was begun goes on")
