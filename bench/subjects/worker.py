"""The process a subject runs in: opens one model, runs it when told, and times it without leaving the process.

In: requests, as bench/processes/serve.py reads them. Out: replies. A process of its own, so that a crash or a hang
takes nothing else down and memory is that of one subject. Runtimes are imported when the model is opened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes.memory import read_peak_bytes
from bench.processes.serve import Reply, answer_requests
from bench.subjects.session import choose_clock, open_session
from bench.subjects.subject import SubjectSpec
from bench.timing.measure import Clock, MeasurePlan, run_block, warm_up
from runtimes.errors import UnsupportedModel, UsageError
from runtimes.protocol import Session

# Kinds of numpy's types: floats, integers with a sign and without, booleans.
_NUMBERS = "fiub"


class Worker:
    """One open subject. Every public method answers one kind of request with plain data."""

    def __init__(self, spec: SubjectSpec) -> None:
        self._spec = spec
        self._session: Session | None = None
        self._feeds: dict[str, Any] = {}
        self._call: Callable[[], object] | None = None
        self._clock = Clock()

    def open(self) -> Reply:
        """Open the model; once more, if it is open: the new session lies elsewhere in memory."""
        if self._session is not None:
            self._session.close()
            self._session = self._call = None
        opened = open_session(self._spec)
        self._session = opened.session
        self._clock = choose_clock(self._spec)
        return {
            "inputs": [asdict(spec) for spec in self._session.inputs],
            "outputs": [asdict(spec) for spec in self._session.outputs],
            "load_ns": opened.load_ns,
            "load_memory_bytes": opened.load_memory_bytes,
        }

    def prepare(self, feeds: str) -> Reply:
        """Take the arrays of an ``.npz`` file as the input of all runs that follow.

        Those that this model does not take are for other subjects: a checkpoint may take more than its export.
        """
        names = {spec.name for spec in self._opened().inputs}
        with np.load(feeds, allow_pickle=False) as arrays:
            self._feeds = {name: arrays[name] for name in arrays.files if name in names}
        self._call = self._opened().prepare(self._feeds)
        return {}

    def warm_up(self, seconds: float) -> Reply:
        """Run until the speed is stable, at most about so long."""
        return {"ns": warm_up(self._prepared(), MeasurePlan(warmup_seconds=seconds), self._clock)}

    def run_block(self, runs: int, discard: int, pause_s: float) -> Reply:
        """Pause, run and discard a few, then time ``runs`` runs."""
        plan = MeasurePlan(pause_s=pause_s, discard=discard)
        return {"ns": run_block(self._prepared(), runs, plan, self._clock)}

    def answer(self, out: str) -> Reply:
        """Run once and write every output into an ``.npz`` file; texts are none that can be compared."""
        self._prepared()
        outputs: dict[str, Any] = dict(self._opened().run(self._feeds))
        texts = [name for name, array in outputs.items() if array.dtype.kind not in _NUMBERS]
        if texts:
            cure = "export it without that output"
            raise UnsupportedModel("the model gives texts, and numbers alone are compared", where=texts[0], cure=cure)
        np.savez(out, **outputs)
        return {}

    def run_streams(self, streams: int, seconds: float) -> Reply:
        """Run from several threads at once for a while; say how many runs finished in how long."""
        if streams > 1 and not getattr(self._opened(), "thread_safe", False):
            raise UnsupportedModel("this runtime does not run from several threads", cure="measure it with 1 stream")
        self._prepared()
        runs, ns = run_streams([self._make_caller() for _ in range(streams)], seconds)
        return {"runs": runs, "ns": ns}

    def peak_memory(self) -> Reply:
        """Say the most memory this process has held."""
        return {"bytes": read_peak_bytes()}

    def profile_ops(self, runs: int) -> Reply:
        """Profile the subject on the prepared input, opened anew."""
        from bench.subjects.per_op import profile_ops

        self._prepared()
        return {"ops": [asdict(one) for one in profile_ops(self._spec, self._feeds, runs)]}

    def _make_caller(self) -> Callable[[], object]:
        """Return a call of one caller's own: two may not share the outputs of a binding."""
        call, clock = self._opened().prepare(self._feeds), self._clock
        # A call may return before its device has finished; reading the clock waits for that.
        return lambda: (call(), clock.now_ns())

    def _opened(self) -> Session:
        if self._session is None:
            raise UsageError("the subject is not open", cure="open it first")
        return self._session

    def _prepared(self) -> Callable[[], object]:
        if self._call is None:
            raise UsageError("the subject has no input", cure="prepare it first")
        return self._call


def run_streams(calls: Sequence[Callable[[], object]], seconds: float) -> tuple[int, int]:
    """Repeat each call in a thread of its own until the time is up; return how many finished, in how many ns."""
    counts, failures = [0] * len(calls), list[BaseException]()
    begin = threading.Barrier(len(calls) + 1)
    stop = threading.Event()

    def work(number: int) -> None:
        begin.wait()
        try:
            while not stop.is_set():
                calls[number]()
                counts[number] += 1
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    begin.wait()
    start_ns = time.perf_counter_ns()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts), time.perf_counter_ns() - start_ns


def make_answers(told: Mapping[str, Any]) -> Mapping[str, Callable[..., Reply]]:
    """Return what answers each request for the subject that the first line describes."""
    worker = Worker(SubjectSpec(**{**told, "model": Path(told["model"]), "affinity": tuple(told["affinity"])}))
    return {
        "open": worker.open,
        "prepare": worker.prepare,
        "warm_up": worker.warm_up,
        "run_block": worker.run_block,
        "answer": worker.answer,
        "run_streams": worker.run_streams,
        "peak_memory": worker.peak_memory,
        "profile_ops": worker.profile_ops,
    }


if __name__ == "__main__":
    answer_requests(make_answers)
