"""What the layers of an encoder compute while it runs: hidden states, and how attention is shared out.

In: a model laid out like BERT. Out: tensors, one a layer, that gradients flow through. Imports torch.

Read by hooks and not through ``output_attentions``: there the student's probabilities come after dropout, whose zeros
have no logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from compression.models.layers import list_layers
from runtimes.errors import UsageError

_CURE = "match soft labels alone: hidden_weight = 0, attention_weight = 0"


@dataclass(slots=True)
class Recorded:
    """What one run left behind; a list holds one tensor a layer, in order.

    Attributes:
        hidden: float [batch, tokens, width], behind each layer.
        queries: float [batch, tokens, heads * size].
        keys: float [batch, tokens, heads * size].
    """

    hidden: list[torch.Tensor] = field(default_factory=list)
    queries: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)


def list_recordable(model: nn.Module) -> list[nn.Module]:
    """Return the layers that :func:`record_layers` reads.

    Raises:
        UsageError: the model is not laid out like BERT.
    """
    try:
        layers: list[Any] = list_layers(model)
    except ValueError as error:
        raise UsageError(
            f"hidden states and attention cannot be matched: {error}", where=type(model).__name__, cure=_CURE
        ) from error
    return layers


@contextmanager
def record_layers(model: nn.Module) -> Iterator[Recorded]:
    """Record what the layers of ``model`` compute while the context is open: one run, or the runs are mixed up.

    Raises:
        UsageError: the model is not laid out like BERT.
    """
    recorded = Recorded()
    layers: list[Any] = list_recordable(model)
    hooks = []
    for layer in layers:
        attention = layer.attention.self
        for module, taken in (
            (layer, recorded.hidden),
            (attention.query, recorded.queries),
            (attention.key, recorded.keys),
        ):
            hooks.append(module.register_forward_hook(lambda _, __, out, taken=taken: taken.append(_first(out))))
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def record_hidden(layers: Sequence[nn.Module]) -> Iterator[Recorded]:
    """Record what comes out of ``layers``, of any architecture, while the context is open: one run."""
    recorded = Recorded()
    hooks = [layer.register_forward_hook(lambda _, __, out: recorded.hidden.append(_first(out))) for layer in layers]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def count_heads(model: nn.Module) -> list[int]:
    """Return the number of heads of each layer."""
    layers: list[Any] = list_recordable(model)
    return [int(layer.attention.self.num_attention_heads) for layer in layers]


def score_attention(query: torch.Tensor, key: torch.Tensor, heads: int, mask: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of attention's probabilities, float [batch, heads, tokens, tokens], before any dropout.

    Args:
        query: float [batch, tokens, heads * size].
        key: As ``query``.
        heads: How many.
        mask: bool [batch, tokens]: no attention goes where it is false.
    """
    batch, tokens, width = query.shape
    shape = (batch, tokens, heads, width // heads)
    scores = query.view(shape).transpose(1, 2) @ key.view(shape).permute(0, 2, 3, 1) * (width // heads) ** -0.5
    # As large as is sure to leave nothing of the probability, and finite: a row without any token must not give NaN.
    away = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask[:, None, None, :], away).log_softmax(dim=-1)


def _first(out: object) -> torch.Tensor:
    taken = out[0] if isinstance(out, tuple) else out
    assert isinstance(taken, torch.Tensor), f"a layer gives a {type(taken).__name__}"
    return taken.float()
