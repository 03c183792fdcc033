"""What a training makes small: the loss of a batch, and the modules beside the model that learn with it.

In: a model and the samples. Out: an :class:`Objective`. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from compression.models.forward import predicts_next, predicts_tokens, run_model
from compression.objectives.next_token import check_head, measure_next
from compression.samples import Batch, Samples
from runtimes.errors import DataError

# What masked language models were trained with (Devlin et al. 2019, section 3.1).
_MASKED_SHARE = 0.15
_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """``loss`` maps a batch to a scalar with gradients; ``modules`` learn beside the model, by name."""

    loss: Callable[[Batch], torch.Tensor]
    modules: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids that are no words: ``mask`` is None where the tokenizer has none; ``every`` are all of them."""

    padding: int = 0
    mask: int | None = None
    every: tuple[int, ...] = ()


def make_task_objective(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> Objective:
    """Return the task's own loss: classes, scores, or without labels the next token, or masked ones.

    Raises:
        DataError: no labels, and the model predicts no tokens.
    """
    if not has_answers(model, samples, tokens):
        raise DataError("the data has no labels to learn from", cure="name their column with --label-column, or distil")
    if samples.labels is not None:
        return Objective(loss=lambda batch: measure_loss(run_model(model, batch.inputs), _require_labels(batch)))
    if predicts_next(model):
        check_head(model)
        return Objective(loss=lambda batch: measure_next(model, batch))
    return Objective(loss=lambda batch: _measure_masked(model, batch, tokens))


def has_answers(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> bool:
    """Whether the samples themselves say what is right: by labels, or by tokens that the model predicts."""
    hides = tokens.mask is not None and predicts_tokens(model)
    return samples.labels is not None or predicts_next(model) or hides


def measure_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of a batch: cross-entropy for classes, squared error for scores."""
    if labels.is_floating_point():
        return nn.functional.mse_loss(logits.reshape(labels.shape), labels)
    return nn.functional.cross_entropy(logits, labels)


def mask_tokens(ids: torch.Tensor, tokens: SpecialTokens, vocabulary_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide some tokens as masked language models are trained (Devlin et al. 2019, section 3.1).

    Draws from torch's own generator.

    Returns:
        The ids with 15 % chosen, of which 80 % became the mask, 10 % a random piece; and the ids that were there,
        -100 where nothing was chosen. Both [batch, sequence] int64.
    """
    ordinary = ~torch.isin(ids, torch.tensor([tokens.padding, *tokens.every]))
    chosen = (torch.rand(ids.shape) < _MASKED_SHARE) & ordinary
    fate = torch.rand(ids.shape)
    hidden = torch.where(chosen & (fate < 0.8), torch.full_like(ids, tokens.mask or 0), ids)
    random = torch.randint_like(ids, vocabulary_size)
    hidden = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random, hidden)
    return hidden, torch.where(chosen, ids, torch.full_like(ids, _IGNORED))


def _measure_masked(model: nn.Module, batch: Batch, tokens: SpecialTokens) -> torch.Tensor:
    config: Any = model.config
    hidden, expected = mask_tokens(batch.inputs["input_ids"], tokens, int(config.vocab_size))
    logits = run_model(model, {**batch.inputs, "input_ids": hidden})
    if not bool((expected != _IGNORED).any()):
        return logits.sum() * 0.0  # a mean over nothing is no number
    return nn.functional.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=_IGNORED)


def _require_labels(batch: Batch) -> torch.Tensor:
    assert batch.labels is not None
    return batch.labels
