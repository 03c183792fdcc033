"""What generates in a measurement: plain data that a worker process can be told, and what it then drives.

Must not import a runtime; it is imported in the environments of peers, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

EngineName = Literal["genai", "torch", "llama.cpp"]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
    """A model that generates, what runs it, and how.

    Attributes:
        label: Its name in tables and files.
        engine: ``genai`` (onnxruntime-genai), ``torch`` (PyTorch eager) or ``llama.cpp``.
        model: A folder with ``genai_config.json``, a checkpoint folder, or a ``.gguf`` file.
        threads: Threads to run with.
        python: The Python of a peer's own environment; None is ours.
    """

    label: str
    engine: EngineName
    model: Path
    threads: int
    python: Path | None = None


class Engine(Protocol):
    """A model open for generation. It always takes the likeliest token and never stops of itself."""

    def begin(self, prompts: Ids, new_tokens: int) -> Ids:
        """Read prompts [streams, length], at most ``new_tokens`` are to follow each; return the first ones [streams].

        What was begun before is forgotten.
        """

    def step(self) -> Ids:
        """Return the next token of every stream [streams]."""
