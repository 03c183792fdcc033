"""How good a model in training is on samples: the loss, and what people ask for.

In: a model and samples. Out: plain numbers. For figures to publish, ``stepdown eval`` measures the exported artifact.
Imports torch.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from compression.models.forward import predicts_next, run_model
from compression.objectives.next_token import check_head, find_asked, measure_next
from compression.objectives.objective import SpecialTokens, has_answers, make_task_objective, measure_loss
from compression.samples import Samples, read_batches
from runtimes.errors import DataError

_BATCH_SIZE = 64
# Tokens that a language model is shown at once: attention grows with the square of the length.
_BATCH_TOKENS = 4096
# Its exp is still a float.
_LARGEST_EXPONENT = 700.0
# Masked tokens are drawn: every measurement hides the same ones.
_MASKING_SEED = 0


def measure(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> dict[str, float]:
    """Return ``loss`` (mean over samples), and ``accuracy`` for classes or ``correlation`` for scores.

    Of a causal language model the loss is a mean over tokens, and ``perplexity`` is exp of it.

    The model is left in the mode it came in; torch's random state is as before.

    Raises:
        DataError: the samples have no labels and the model predicts no tokens.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if samples.labels is not None:
                return _measure(model, samples)
            return _measure_next(model, samples) if predicts_next(model) else _measure_masked(model, samples, tokens)
    finally:
        model.train(training)


def check_measurable(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> None:
    """Raise DataError where :func:`measure` would: before a training, whose every epoch ends with it."""
    if not has_answers(model, samples, tokens):
        raise DataError(
            "the held-out data has no labels, and of a model that predicts no tokens nothing can be measured on it",
            where="--held-out",
            cure="name their column with --label-column, or leave --held-out out",
        )


def _measure(model: nn.Module, samples: Samples) -> dict[str, float]:
    losses: list[float] = []
    answers: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    for batch in read_batches(samples, _BATCH_SIZE):
        assert batch.labels is not None
        logits = run_model(model, batch.inputs)
        losses.append(float(measure_loss(logits, batch.labels)) * len(batch))
        answers.append(logits)
        labels.append(batch.labels)
    found = {"loss": math.fsum(losses) / len(samples)}
    given, said = torch.cat(labels), torch.cat(answers)
    if given.is_floating_point():
        return {**found, "correlation": correlate(said.reshape(given.shape), given)}
    return {**found, "accuracy": float((said.argmax(dim=1) == given).double().mean())}


def _measure_next(model: nn.Module, samples: Samples) -> dict[str, float]:
    check_head(model)
    losses: list[float] = []
    counts: list[int] = []
    longest = max(len(row["input_ids"]) for row in samples.rows)
    for batch in read_batches(samples, max(1, _BATCH_TOKENS // longest)):
        counts.append(int(find_asked(batch.inputs).sum()))
        losses.append(float(measure_next(model, batch)) * counts[-1])
    if not sum(counts):
        raise DataError("no text of the data has two tokens", cure="give longer texts")
    loss = math.fsum(losses) / sum(counts)
    return {"loss": loss, "perplexity": math.exp(min(loss, _LARGEST_EXPONENT))}


def _measure_masked(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> dict[str, float]:
    objective = make_task_objective(model, samples, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_MASKING_SEED)
        losses = [float(objective.loss(batch)) * len(batch) for batch in read_batches(samples, _BATCH_SIZE)]
    return {"loss": math.fsum(losses) / len(samples)}


def correlate(said: torch.Tensor, given: torch.Tensor) -> float:
    """Return Pearson's correlation of two tensors of one shape; 0 where one side does not vary."""
    left, right = said.double() - said.double().mean(), given.double() - given.double().mean()
    norm = float(left.norm() * right.norm())
    return float((left * right).sum()) / norm if norm > 0 and math.isfinite(norm) else 0.0
