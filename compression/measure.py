"""How good a model in training is on samples: the loss, and what people ask for.

In: a model and samples. Out: plain numbers. For figures to publish, ``stepdown eval`` measures the exported artifact.
Imports torch.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from compression.objective import SpecialTokens, make_task_objective, measure_loss, run_model
from compression.samples import Samples, read_batches

_BATCH_SIZE = 64
# Masked tokens are drawn: every measurement hides the same ones.
_MASKING_SEED = 0


def measure(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> dict[str, float]:
    """Return ``loss`` (mean over samples), and ``accuracy`` for classes or ``correlation`` for scores.

    The model is left in the mode it came in; torch's random state is as before.

    Raises:
        DataError: the samples have no labels and the model predicts no tokens.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _measure_masked(model, samples, tokens) if samples.labels is None else _measure(model, samples)
    finally:
        model.train(training)


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
        return {**found, "correlation": _correlate(said.reshape(given.shape), given)}
    return {**found, "accuracy": float((said.argmax(dim=1) == given).double().mean())}


def _measure_masked(model: nn.Module, samples: Samples, tokens: SpecialTokens) -> dict[str, float]:
    objective = make_task_objective(model, samples, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_MASKING_SEED)
        losses = [float(objective.loss(batch)) * len(batch) for batch in read_batches(samples, _BATCH_SIZE)]
    return {"loss": math.fsum(losses) / len(samples)}


def _correlate(said: torch.Tensor, given: torch.Tensor) -> float:
    """Return Pearson's correlation; 0 where one side does not vary."""
    left, right = said.double() - said.double().mean(), given.double() - given.double().mean()
    norm = float(left.norm() * right.norm())
    return float((left * right).sum()) / norm if norm > 0 and math.isfinite(norm) else 0.0
