"""The answering side of a worker process: one JSON request a line in, one JSON reply a line out.

In: functions by the name of the request. Out: their answers, or the error they raised, as data. Must not import a
runtime; it runs in the environments of peers, too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from runtimes.errors import StepdownError

Reply = Mapping[str, Any]


def answer_requests(make: Callable[[Mapping[str, Any]], Mapping[str, Callable[..., Reply]]]) -> None:
    """Serve the process that started this one until it asks no more.

    Args:
        make: Takes the first line, and returns what answers each kind of request.
    """
    end_with_parent()
    # Libraries print to standard output; replies must not be among that.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    line = sys.stdin.readline()
    if line:
        _serve(make(json.loads(line)), sys.stdin, replies)


def _serve(answers: Mapping[str, Callable[..., Reply]], requests: TextIO, replies: TextIO) -> None:
    for line in requests:
        request = json.loads(line)
        try:
            reply = {"reply": answers[request["do"]](*request["with"])}
        except StepdownError as error:
            told = {"kind": type(error).__name__, "what": error.what, "where": error.where, "cure": error.cure}
            reply = {"error": told}
        print(json.dumps(reply), file=replies, flush=True)


def end_with_parent() -> None:
    """Have Linux end this process with the one that started it, which may be killed while this one is stopped."""
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG is 1 (prctl(2)).
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
