"""A decoder as one module for a prompt and for the tokens after it: tokens and a cache in, logits and a cache out.

In: a causal language model of transformers. Out: a module whose attention and rotary positions trace as one node each
(:mod:`exporter.tracing.step_functions`). Imports torch and transformers.

Traced as PyTorch computes it, each layer would be some sixty nodes and every axis a sum of others, which is where
export spends its time: 120 s for 30 layers, of which a third goes to symbolic sizes and a third to rewriting.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from exporter.tracing.step_functions import ATTENTION, DOMAIN, ROTATE, VERSION
from runtimes.errors import UnsupportedModel

_NAME = "stepdown"
_ROTARY = "apply_rotary_pos_emb"
# What an attention may be told that changes nothing of what it computes.
_HARMLESS = {"dropout", "is_causal", "position_ids", "cache_position", "use_cache", "output_attentions", "head_mask"}


class Step(torch.nn.Module):
    """Runs ``model`` on new tokens behind a cache.

    ``forward`` takes ``input_ids`` and ``position_ids`` int64 [batch, sequence], ``attention_mask`` int64
    [batch, total] and the cache, a tuple of keys and values [batch, kv_heads, past, head_dim] in turn; it returns
    ``logits`` [batch, sequence, vocabulary] and the cache of ``total`` tokens.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, ...]:
        """See the class."""
        cache = _Past(past, attention_mask)
        with _attending(cache):
            logits = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            ).logits
        return (logits, *cache.present(type(self.model).__name__))


def refuse_attention(what: str, where: str) -> UnsupportedModel:
    """Return the error for a model whose attention is not that of transformers; ``what`` says who attends how."""
    return UnsupportedModel(
        f"{what} through transformers' attention interface",
        where=where,
        cure="use a model of an architecture whose attention goes through it, as GPT-2, Llama or GPT-NeoX",
    )


@contextmanager
def one_node_each(model: torch.nn.Module) -> Iterator[None]:
    """Let attention and rotary positions of ``model`` trace as one node each, while the context lasts."""
    config: Any = model.config
    module: Any = sys.modules[type(model).__module__]
    usual, rotary = config._attn_implementation, getattr(module, _ROTARY, None)
    turns = rotary is not None and _turns_halves(rotary)
    config._attn_implementation = _NAME
    ALL_MASK_ATTENTION_FUNCTIONS[_NAME] = _leave_out_mask
    if turns:
        setattr(module, _ROTARY, _rotate_both)
    try:
        yield
    finally:
        config._attn_implementation = usual
        del ALL_MASK_ATTENTION_FUNCTIONS[_NAME]
        if turns:
            setattr(module, _ROTARY, rotary)


class _Past(Cache):
    """A cache that gives back what it is given: the attention node itself puts old and new together."""

    is_compileable = False

    def __init__(self, past: tuple[torch.Tensor, ...], mask: torch.Tensor) -> None:
        self.layers: list[Any] = []
        self._past = past
        self._mask = mask
        self._present: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del layer_idx, args, kwargs  # transformers' signature
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._past[2 * layer_idx].shape[2]

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.get_seq_length(layer_idx) + query_length, 0

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int
    ) -> torch.Tensor:
        past_key, past_value = self._past[2 * layer], self._past[2 * layer + 1]
        batch, heads, new, width = query.shape
        total = past_key.shape[2] + new
        output, *present = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{ATTENTION}",
            (query, key, value, past_key, past_value, self._mask),
            {"scale": scale, "window": window},
            dtypes=(query.dtype,) * 3,
            shapes=(
                (batch, new, heads, width),
                (batch, key.shape[1], total, width),
                (batch, key.shape[1], total, width),
            ),
            version=VERSION,
        )
        self._present[layer] = (present[0], present[1])
        return output

    def present(self, model: str) -> tuple[torch.Tensor, ...]:
        layers = len(self._past) // 2
        if len(self._present) != layers:
            # Attention that went another way made no node, and nobody told it what is padding.
            raise refuse_attention(f"{len(self._present)} of its {layers} layers attend", model)
        return tuple(tensor for layer in range(layers) for tensor in self._present[layer])


@contextmanager
def _attending(cache: _Past) -> Iterator[None]:
    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **others: object,
    ) -> tuple[torch.Tensor, None]:
        del attention_mask  # the node is given the mask of the tokens, not one that was made for this form
        _require_known(module, others)
        scale = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
        layer: Any = module
        return cache.attend(layer.layer_idx, query, key, value, scale, sliding_window or -1), None

    ALL_ATTENTION_FUNCTIONS[_NAME] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[_NAME]


def _require_known(module: torch.nn.Module, others: dict[str, object]) -> None:
    unknown = sorted(name for name, value in others.items() if value is not None and name not in _HARMLESS)
    if unknown:
        raise UnsupportedModel(
            f"its attention is told {', '.join(unknown)}, which is not known here",
            where=type(module).__name__,
            cure="report it with the model; models whose attention is scaled, causal and may have a window are known",
        )


def _leave_out_mask(*args: object, **kwargs: object) -> None:
    """Make no mask: the attention node makes its own."""
    del args, kwargs


def _rotate_both(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *args: object, **kwargs: object
) -> tuple[torch.Tensor, torch.Tensor]:
    del args, kwargs  # the axis of the heads, which is 1 wherever this stands in
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    width = cos.shape[-1]
    part, rest = x[..., :width], x[..., width:]
    turned: torch.Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{ROTATE}", (part, cos, sin), {}, dtype=part.dtype, shape=part.shape, version=VERSION
    )
    return turned if width == x.shape[-1] else torch.cat([turned, rest], dim=-1)


def _turns_halves(rotary: Any) -> bool:  # noqa: ANN401 - a function of transformers
    """Whether a model's rotary positions turn the two halves of a head, which is what the node does; tried on numbers.

    Some turn neighbours, or more than one axis of positions; those stay as PyTorch traces them.
    """
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 5, 8, generator=generator) for _ in range(2))
    half = torch.randn(2, 5, 4, generator=generator)
    cos, sin = (torch.cat([turn(half), turn(half)], dim=-1) for turn in (torch.cos, torch.sin))
    try:
        got = rotary(q, k, cos, sin)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    wanted = [x * cos[:, None] + torch.cat([-x[..., 4:], x[..., :4]], dim=-1) * sin[:, None] for x in (q, k)]
    return len(got) == 2 and all(
        one.shape == want.shape and torch.allclose(one, want, atol=1e-5) for one, want in zip(got, wanted, strict=True)
    )
