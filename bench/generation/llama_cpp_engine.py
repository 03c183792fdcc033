"""llama.cpp, token by token, in the environment that has it (bench/peers/llama_cpp.py).

In: a ``.gguf`` file. Out: an :class:`~bench.generation.subject.Engine`. Imports llama_cpp and numpy. Its settings are
llama.cpp's own, but for the threads; streams are sequences of one batch.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from bench.generation.subject import Ids
from runtimes.errors import SubjectFailed, UnsupportedModel, UsageError

# What llama.cpp takes at once of a longer prompt (its ``n_batch``).
_BATCH_TOKENS = 2048


class LlamaCppEngine:
    """A model of llama.cpp; its context is made anew for each beginning, as large as that needs."""

    def __init__(self, model: Path, *, threads: int) -> None:
        """Load the file.

        Raises:
            UnsupportedModel: llama.cpp does not take it.
        """
        llama_cpp.llama_backend_init()
        # Its chatter would be the last words of an error.
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silence, None)
        self._threads = threads
        self._model = llama_cpp.llama_model_load_from_file(str(model).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise UnsupportedModel("llama.cpp does not take it", where=str(model))
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._context: Any = None
        self._place = 0
        self._last: Ids | None = None

    def begin(self, prompts: Ids, new_tokens: int) -> Ids:
        """Read the prompts, sequence after sequence, and return the first token of each."""
        streams, length = prompts.shape
        self._open_context(streams, length + new_tokens)
        flat = [(int(token), stream, place) for stream, row in enumerate(prompts) for place, token in enumerate(row)]
        firsts = np.zeros(streams, np.int64)
        for start in range(0, len(flat), _BATCH_TOKENS):
            part = flat[start : start + _BATCH_TOKENS]
            answers = self._decode(part, [place == length - 1 for _, _, place in part])
            for entry, token in answers.items():
                firsts[part[entry][1]] = token
        self._place, self._last = length, firsts
        return firsts

    def step(self) -> Ids:
        """Return the next token of every stream."""
        if self._last is None:
            raise UsageError("nothing was begun", cure="begin with prompts")
        given = [(int(token), stream, self._place) for stream, token in enumerate(self._last)]
        answers = self._decode(given, [True] * len(given))
        self._place, self._last = self._place + 1, np.array([answers[entry] for entry in range(len(given))], np.int64)
        return self._last

    def _open_context(self, streams: int, total: int) -> None:
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = streams * total, _BATCH_TOKENS, streams
        params.n_threads = params.n_threads_batch = self._threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise SubjectFailed(f"llama.cpp makes no context of {streams} x {total} tokens", where="llama.cpp")

    def _decode(self, entries: list[tuple[int, int, int]], wanted: list[bool]) -> dict[int, int]:
        """Run (token, stream, place) entries; return the likeliest next token of those wanted, by entry."""
        batch = llama_cpp.llama_batch_init(len(entries), 0, 1)
        try:
            batch.n_tokens = len(entries)
            for number, (token, stream, place) in enumerate(entries):
                batch.token[number], batch.pos[number] = token, place
                batch.n_seq_id[number], batch.seq_id[number][0] = 1, stream
                batch.logits[number] = wanted[number]
            code = llama_cpp.llama_decode(self._context, batch)
            if code != 0:
                raise SubjectFailed(f"llama.cpp stopped with code {code}", where="llama.cpp")
            return {number: self._choose(number) for number, is_wanted in enumerate(wanted) if is_wanted}
        finally:
            llama_cpp.llama_batch_free(batch)

    def _choose(self, entry: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, entry)
        array = np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (self._vocabulary,))
        return int(array.argmax())
