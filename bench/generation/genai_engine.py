"""An exported decoder on onnxruntime-genai, token by token.

In: a folder with ``genai_config.json``. Out: an :class:`~bench.generation.subject.Engine`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.generation.subject import Ids
from runtimes.errors import UsageError
from runtimes.generation.genai import genai_errors, import_genai, open_model
from runtimes.generation.layout import read_layout

if TYPE_CHECKING:
    import onnxruntime_genai


class GenaiEngine:
    """A model of onnxruntime-genai, driven as :mod:`runtimes.generation` drives it, but past the end of the text."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Open it; raises as :func:`runtimes.generation.generator.open_generator`."""
        self._layout = read_layout(folder)
        self._genai = import_genai()
        self._model = open_model(self._layout, threads)
        self._generator: onnxruntime_genai.Generator | None = None

    def begin(self, prompts: Ids, new_tokens: int) -> Ids:
        """Read the prompts and return the first token of each."""
        self._generator = None
        total = prompts.shape[1] + new_tokens
        if total > self._layout.context:
            raise UsageError(
                f"{prompts.shape[1]} tokens and {new_tokens} more do not fit in the model's {self._layout.context}",
                where=str(self._layout.directory),
                cure="give a smaller context",
            )
        with genai_errors(str(self._layout.directory)):
            params = self._genai.GeneratorParams(self._model)
            # As many tokens as were asked for, whatever they say.
            params.set_search_options(batch_size=len(prompts), max_length=total, min_length=total, do_sample=False)
            self._generator = self._genai.Generator(self._model, params)
            self._generator.append_tokens(prompts.astype(np.int32).ravel())
        return self.step()

    def step(self) -> Ids:
        """Return the next token of every stream."""
        if self._generator is None:
            raise UsageError("nothing was begun", cure="begin with prompts")
        with genai_errors(str(self._layout.directory)):
            self._generator.generate_next_token()
            return np.array(self._generator.get_next_tokens(), np.int64)
