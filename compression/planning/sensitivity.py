"""How much a change to a model changes its answers, on some samples.

In: a model, samples, and other models of the same task. Out: a :class:`Change` for each. Imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from compression.models.forward import run_model
from compression.models.inputs import drop_padding
from compression.objectives.measure import correlate
from compression.samples import Batch, Samples, read_batches

Metric = Literal["accuracy", "agreement", "correlation", "correlation with itself", "cosine"]
_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a change does.

    Attributes:
        drop: By how much the metric falls; below 0 where it rises.
        distance: How far the answers move: the mean divergence of classes in nats, 1 - the correlation of scores, else
            1 - the mean cosine. It tells changes apart that the metric, over a few hundred samples, cannot.
    """

    drop: float
    distance: float


class Ruler:
    """Measures models against one, on samples.

    Attributes:
        metric: ``accuracy`` and ``correlation`` against labels; without labels ``agreement`` with the first model's
            classes, ``correlation with itself``, of its scores where it gives one a sample, or the ``cosine`` to its
            answers.
        score: The metric of the first model.
    """

    def __init__(self, model: nn.Module, samples: Samples, *, classifies: bool) -> None:
        """Run ``model``; ``classifies``: whether its answers, if several, are logits of classes where no labels say."""
        self._samples = samples
        self._answers = answer_all(model, samples)
        self.metric = _choose_metric(samples, self._answers, classifies=classifies)
        self.score = self._score(self._answers)

    def measure(self, model: nn.Module) -> Change:
        """Return how the answers of ``model`` differ from those of the first one."""
        answers = answer_all(model, self._samples)
        if self._is_of_classes():
            told = nn.functional.log_softmax(answers, dim=1)
            meant = nn.functional.log_softmax(self._answers, dim=1)
            distance = float(nn.functional.kl_div(told, meant, log_target=True, reduction="batchmean"))
        elif _are_scores(answers):
            distance = 1.0 - correlate(answers, self._answers)
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
            return correlate(answers.flatten(), torch.as_tensor(labels))
        if self.metric == "correlation with itself":
            return correlate(answers, self._answers)
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


def _choose_metric(samples: Samples, answers: torch.Tensor, *, classifies: bool) -> Metric:
    if samples.labels is not None:
        return "correlation" if samples.labels.dtype.kind == "f" else "accuracy"
    if _are_scores(answers):
        return "correlation with itself"  # of one class there is no other to take
    return "agreement" if classifies else "cosine"


def _are_scores(answers: torch.Tensor) -> bool:
    return answers.shape[1] == 1


def _compare(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(nn.functional.cosine_similarity(first.double(), second.double(), dim=1).mean())
