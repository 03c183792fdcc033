"""A causal language model in PyTorch, token by token, as transformers runs it: what exports are measured against.

In: a Hugging Face folder. Out: tokens. Must not import torch at module level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import CorruptArtifact, MissingDependency, UsageError

Ids = NDArray[np.int64]


class TorchEngine:
    """The model in float32 with its cache. It takes the likeliest token and never stops of itself."""

    def __init__(self, directory: Path, *, threads: int) -> None:
        """Load it.

        Raises:
            CorruptArtifact: there is no readable checkpoint of a causal language model in the folder.
            MissingDependency: transformers is not installed.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            cure = "pip install 'stepdown[onnxruntime]'"
            raise MissingDependency("transformers is not installed", cure=cure) from error
        torch.set_num_threads(threads)
        try:
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                directory, dtype=torch.float32, local_files_only=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CorruptArtifact(f"not a readable checkpoint: {reason}", where=str(directory)) from error
        self._model = model.eval()
        self._cache: Any = None
        self._last: Any = None

    def begin(self, prompts: Ids, new_tokens: int) -> Ids:
        """Read prompts [streams, length] and return the first token of each; the cache grows as it must."""
        import torch

        del new_tokens
        self._cache = None
        return self._run(torch.from_numpy(prompts))

    def step(self) -> Ids:
        """Return the next token of every stream [streams]."""
        if self._last is None:
            raise UsageError("nothing was begun", cure="begin with prompts")
        return self._run(self._last)

    def _run(self, ids: Any) -> Ids:  # noqa: ANN401 - a torch.Tensor, which is not imported here
        import torch

        with torch.inference_mode():
            result = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            self._cache, self._last = result.past_key_values, result.logits[:, -1].argmax(-1, keepdim=True)
        tokens: Ids = self._last[:, 0].numpy()
        return tokens
