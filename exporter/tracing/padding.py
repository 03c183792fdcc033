"""A smaller attention mask while tracing: one row per sequence instead of one per query.

In: the arguments transformers gives its mask functions. Out: the additive mask.
Imports torch and transformers; only the Hugging Face tracer uses it.

transformers builds an eager mask of shape (batch, 1, query, key) by comparing positions, which traces to about 20
nodes and a mask as large as one head's scores, read by every layer. A padding mask does not depend on the query:
(batch, 1, 1, key) broadcasts to the same sums, in three nodes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import masking_utils


@contextlib.contextmanager
def broadcast_padding_masks() -> Iterator[None]:
    """Let eager attention take a (batch, 1, 1, key) mask for plain padding while the block runs."""
    masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    masks["eager"] = _make_mask
    try:
        yield
    finally:
        del masks["eager"]  # the local override; transformers' own stays


def _make_mask(
    *,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **rest: Any,  # noqa: ANN401 - transformers' mask interface, passed on as it came
) -> torch.Tensor | None:
    if mask_function is not masking_utils.bidirectional_mask_function or attention_mask is None:
        made: torch.Tensor | None = masking_utils.eager_mask(
            mask_function=mask_function, attention_mask=attention_mask, dtype=dtype, **rest
        )
        return made
    # The same values as transformers' eager mask, so that a row without any token to see answers alike.
    return torch.where(attention_mask[:, None, None, :].bool(), torch.zeros((), dtype=dtype), torch.finfo(dtype).min)
