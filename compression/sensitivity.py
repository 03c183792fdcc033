"""How much a change to a model changes its answers, on some samples.

In: a model, samples, and other models of the same task. Out: a :class:`Change` for each. Imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from compression.moments import drop_padding
from compression.objective import run_model
from compression.samples import Batch, Samples, read_batches

Metric = Literal["accuracy", "agreement", "correlation", "cosine"]
_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a change does.

    Attributes:
        drop: By how much the metric falls; below 0 where it rises.
        distance: How far the answers move: the mean divergence of classes in nats, else 1 - the mean cosine. It tells
            changes apart that the metric, over a few hundred samples, cannot.
    """

    drop: float
    distance: float


class Ruler:
    """Measures models against one, on samples.

    Attributes:
        metric: ``accuracy`` and ``correlation`` against labels; without labels ``agreement`` with the first model's
            classes, or the ``cosine`` to its answers.
        score: The metric of the first model.
    """

    def __init__(self, model: nn.Module, samples: Samples, *, classifies: bool) -> None:
        """Run ``model``; ``classifies`` says whether its answers are logits of classes, where there are no labels."""
        self._samples = samples
        self._answers = answer_all(model, samples)
        self.metric = _choose_metric(samples, classifies=classifies)
        self.score = self._score(self._answers)

    def measure(self, model: nn.Module) -> Change:
        """Return how the answers of ``model`` differ from those of the first one."""
        answers = answer_all(model, self._samples)
        if self._is_of_classes():
            told = nn.functional.log_softmax(answers, dim=1)
            meant = nn.functional.log_softmax(self._answers, dim=1)
            distance = float(nn.functional.kl_div(told, meant, log_target=True, reduction="batchmean"))
        else:
            distance = 1.0 - _compare(answers, self._answers)
        return Change(drop=self.score - self._score(answers), distance=distance)

    def _is_of_classes(self) -> bool:
        return self.metric in ("accuracy", "agreement")

    def _score(self, answers: torch.Tensor) -> float:
        labels = self._samples.labels
        if self.metric == "accuracy":
            return float((answers.argmax(dim=1) == torch.as_tensor(labels)).double().mean())
        if self.metric == "correlation":
            given = torch.as_tensor(labels).double()
            return _compare((answers.flatten() - answers.mean())[None], (given - given.mean())[None])
        if self.metric == "agreement":
            return float((answers.argmax(dim=1) == self._answers.argmax(dim=1)).double().mean())
        return _compare(answers, self._answers)


def answer_all(model: nn.Module, samples: Samples) -> torch.Tensor:
    """Return the first output for every sample, [samples, width] float64; of a vector a token, its mean over tokens."""
    rows: list[torch.Tensor] = [torch.zeros(0)] * len(samples)
    model.eval()
    with torch.no_grad():
        for batch in read_batches(samples, _BATCH_SIZE):
            for index, row in zip(batch.indices, _pool(run_model(model, batch.inputs), batch), strict=True):
                rows[index] = row
    return torch.stack(rows)


def _pool(answers: torch.Tensor, batch: Batch) -> torch.Tensor:
    if answers.dim() < 3:
        return answers.reshape(len(batch), -1).double()
    mask = batch.inputs.get("attention_mask")
    kept = [drop_padding(row, None if mask is None else mask[place]) for place, row in enumerate(answers)]
    return torch.stack([row.reshape(-1, row.shape[-1]).double().mean(dim=0) for row in kept])


def _choose_metric(samples: Samples, *, classifies: bool) -> Metric:
    if samples.labels is None:
        return "agreement" if classifies else "cosine"
    return "correlation" if samples.labels.dtype.kind == "f" else "accuracy"


def _compare(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(nn.functional.cosine_similarity(first.double(), second.double(), dim=1).mean())
