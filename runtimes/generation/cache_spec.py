"""The key-value cache of a decoder as inputs and outputs of its graph, named as onnxruntime-genai names them.

In: the inputs of a session, or counts. Out: a :class:`CacheSpec`. Must not import a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtimes.artifact import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IDS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"
#: An input with a default of 0, int64 [1]: with 1, logits of every token come back, and not of the last alone.
ALL_LOGITS = "all_logits"
#: Axes: tokens given at once, tokens in the cache, and both together.
BATCH, SEQUENCE, PAST, TOTAL = "batch", "sequence", "past", "total"

_PAST_NAME = re.compile(r"past_key_values\.(\d+)\.(key|value)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """What a decoder keeps of the tokens before: a key and a value of [batch, kv_heads, past, head_dim] a layer."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: str = "float32"

    def names(self) -> tuple[tuple[str, str], ...]:
        """Return (input, output) of every tensor of the cache, in the order of the graph."""
        kinds = [(layer, kind) for layer in range(self.layers) for kind in ("key", "value")]
        return tuple((f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}") for layer, kind in kinds)

    def empty(self, batch: int) -> dict[str, NDArray[np.generic]]:
        """Return the cache before the first token: arrays with a ``past`` of 0, by input name."""
        import numpy as np  # names alone, which profiles are given by, need none of it

        shape = (batch, self.kv_heads, 0, self.head_dim)
        return {name: np.zeros(shape, self.dtype) for name, _ in self.names()}

    def bytes_for(self, batch: int, tokens: int) -> int:
        """Return how many bytes the cache of so many tokens takes."""
        import numpy as np

        numbers = 2 * self.layers * batch * self.kv_heads * tokens * self.head_dim
        return numbers * np.dtype(self.dtype).itemsize


def find_cache(inputs: Iterable[TensorSpec]) -> CacheSpec | None:
    """Return the cache among the inputs of a graph; None where there is none, so the model is no decoder with one."""
    found = [spec for spec in inputs if _PAST_NAME.fullmatch(spec.name)]
    if not found:
        return None
    first = found[0]
    _, heads, _, width = first.shape
    if not isinstance(heads, int) or not isinstance(width, int):
        return None
    return CacheSpec(layers=len(found) // 2, kv_heads=heads, head_dim=width, dtype=first.dtype)


def ask_for_all(defaults: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    """Return what lets a graph answer for every token, where :data:`ALL_LOGITS` is among its inputs with defaults."""
    import numpy as np

    return {ALL_LOGITS: np.ones(1, np.int64)} if ALL_LOGITS in defaults else {}
