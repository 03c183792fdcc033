"""The process that a model generates in: opens it, lets it generate when told, and times every token.

In: requests, as bench/processes/serve.py reads them. Out: replies. It runs in the environments of peers, too: what an
engine needs is imported when the model is opened.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.generation.subject import Engine, GenerationSpec
from bench.processes.memory import read_peak_bytes, read_resident_bytes
from bench.processes.serve import Reply, answer_requests
from runtimes.errors import UsageError


class GenerationWorker:
    """One model. Every public method answers one kind of request with plain data."""

    def __init__(self, spec: GenerationSpec, open_engine: Callable[[GenerationSpec], Engine]) -> None:
        self._spec, self._open_engine = spec, open_engine
        self._engine: Engine | None = None

    def open(self) -> Reply:
        """Open the model; say how long that took, and what memory is held then."""
        start_ns = time.perf_counter_ns()
        self._engine = self._open_engine(self._spec)
        return {"ns": time.perf_counter_ns() - start_ns, "resident_bytes": read_resident_bytes()}

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Reply:
        """Generate behind prompts of one length; say the time to the first token, of each after it, and the tokens."""
        if self._engine is None:
            raise UsageError("the model is not open", cure="open it first")
        rows = np.array(prompts, np.int64)
        marks = [time.perf_counter_ns()]
        tokens = [self._engine.begin(rows, new_tokens)]
        marks.append(time.perf_counter_ns())
        for _ in range(new_tokens - 1):
            tokens.append(self._engine.step())
            marks.append(time.perf_counter_ns())
        ns = [later - earlier for earlier, later in itertools.pairwise(marks)]
        return {"first_ns": ns[0], "step_ns": ns[1:], "tokens": np.stack(tokens, axis=1).tolist()}

    def memory(self) -> Reply:
        """Say what memory is held now, the cache of what was generated last included, and the most there ever was."""
        return {"resident_bytes": read_resident_bytes(), "peak_bytes": read_peak_bytes()}


def open_engine(spec: GenerationSpec) -> Engine:
    """Open the model of a subject with what runs it."""
    if spec.engine == "llama.cpp":
        from bench.generation.llama_cpp_engine import LlamaCppEngine

        return LlamaCppEngine(spec.model, threads=spec.threads)
    if spec.engine == "torch":
        from runtimes.torch_generation import TorchEngine

        return TorchEngine(spec.model, threads=spec.threads)
    from bench.generation.genai_engine import GenaiEngine

    return GenaiEngine(spec.model, threads=spec.threads)


def make_answers(told: Mapping[str, Any]) -> Mapping[str, Callable[..., Reply]]:
    """Return what answers each request for the subject that the first line describes."""
    worker = GenerationWorker(GenerationSpec(**{**told, "model": Path(told["model"])}), open_engine)
    return {"open": worker.open, "generate": worker.generate, "memory": worker.memory}


if __name__ == "__main__":
    answer_requests(make_answers)
