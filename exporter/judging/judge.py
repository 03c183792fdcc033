"""How much a candidate loses against float, on data it was not calibrated with.

In: sessions and held-out data. Out: metrics and one number, the drop, that the budget is compared with.
Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.judging.evaluate import EvalData, Evaluated, cosine_rows, cosine_samples, evaluate
from runtimes.errors import UnsupportedModel
from runtimes.protocol import Session, Tensors
from runtimes.serving.pool import pool_outputs
from runtimes.serving.subject import Subject

Feeds = Mapping[str, NDArray[np.generic]]

# Equal vectors have a cosine of 1 less rounding, about 1e-16; that is no drop.
ROUNDING_DIGITS = 9


# The worst sample may lose this many times what the mean may: a mean hides the one text that came out wrong.
WORST_SHARE = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """``metrics`` by name, and what is lost against float (0 is nothing, 0.01 one point).

    ``drop`` is the loss on average, ``worst_drop`` that of the worst sample where samples are compared one by one.
    ``fault`` is what rules a candidate out whatever it drops, in words.
    """

    metrics: Mapping[str, float]
    drop: float
    worst_drop: float = 0.0
    fault: str = ""

    @property
    def charged(self) -> float:
        """What is held against the budget: the mean drop, or the worst sample's over WORST_SHARE where that is more."""
        return max(self.drop, self.worst_drop / WORST_SHARE)

    def describe(self) -> str:
        """Return what is charged, in words."""
        if self.worst_drop / WORST_SHARE > self.drop:
            return f"one sample drops {self.worst_drop:.2%}"
        return f"drops {self.drop:.2%}"


class Judge(Protocol):
    """Judges any session of the model it was made for."""

    def judge(self, session: Session) -> Judgement:
        """Measure one candidate."""
        ...

    def judge_reference(self) -> Judgement:
        """Return what judging the float model again would give."""
        ...


class OutputJudge:
    """Compares outputs with those of the float model: cosine sample by sample, top-1 agreement position by position.

    The drop is one minus the mean cosine of the first output (pooled over tokens for an output a token), the worst drop
    one minus the smallest.
    """

    def __init__(self, reference: Session, batches: Sequence[Feeds]) -> None:
        self._batches = batches
        self._reference = [reference.run(feeds) for feeds in batches]

    def judge(self, session: Session) -> Judgement:
        """Return mean and smallest cosine, and top-1 agreement where the outputs are logits.

        Raises:
            UnsupportedModel: the candidate answers NaN or infinity, or in another shape.
        """
        return self._compare(map(session.run, self._batches))

    def judge_reference(self) -> Judgement:
        """Return the same of the float model.

        Raises:
            UnsupportedModel: it answers NaN or infinity.
        """
        return self._compare(self._reference)

    def _compare(self, answers: Iterable[Tensors]) -> Judgement:
        cosines: list[NDArray[np.float64]] = []
        numbers: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        agreements: list[NDArray[np.bool_]] = []
        for feeds, expected, got in zip(self._batches, self._reference, answers, strict=True):
            _require_finite(got)
            _require_shapes(got, expected)
            pair = pool_outputs(got, feeds), pool_outputs(expected, feeds)
            cosines.append(cosine_rows(*pair))
            if pair[0].shape[1] == 1:
                numbers.append(pair)
            agreements.append(_agree(got, expected, feeds))
        merged, agreed = np.concatenate(cosines), np.concatenate(agreements)
        if len(numbers) == len(cosines):
            merged = cosine_samples(*(np.concatenate(side) for side in zip(*numbers, strict=True)))
        metrics = {"cosine mean": float(merged.mean()), "cosine min": float(merged.min())}
        if len(agreed):
            metrics["top-1 agreement"] = float(agreed.mean())
        mean, worst = (max(0.0, round(1.0 - float(value), ROUNDING_DIGITS)) for value in (merged.mean(), merged.min()))
        return Judgement(metrics=metrics, drop=mean, worst_drop=worst)


class LabelJudge:
    """Compares a metric on labelled data with that of the float model; the drop is the difference."""

    def __init__(self, reference: Subject, data: EvalData, metric: str) -> None:
        self._model, self._data, self._metric = reference, data, metric
        self._baseline = self._measure(reference.session)

    def judge(self, session: Session) -> Judgement:
        """Return the metric of one candidate."""
        value = self._measure(session)
        return Judgement(metrics={self._metric: value}, drop=max(0.0, self._baseline - value))

    def judge_reference(self) -> Judgement:
        """Return the metric of the float model."""
        return Judgement(metrics={self._metric: self._baseline}, drop=0.0)

    def _measure(self, session: Session) -> float:
        model = Evaluated(session=session, tokenizer=self._model.tokenizer, labels=self._model.labels)
        return evaluate(model, self._data, self._metric, advance=_ignore).value


def _ignore(count: int) -> None:
    """Count nothing: judging is quick and shows no progress of its own."""
    del count


def _agree(got: Tensors, expected: Tensors, feeds: Feeds) -> NDArray[np.bool_]:
    """Whether the largest logit is the same, for each unmasked position of every output called logits."""
    # A single logit is largest whatever it is.
    names = [name for name in expected if "logits" in name and expected[name].shape[-1] > 1]
    kept = []
    for name in names:
        same = got[name].argmax(axis=-1) == expected[name].argmax(axis=-1)
        mask = feeds.get("attention_mask")
        if mask is not None and same.shape == mask.shape:
            same = same[mask == 1]
        kept.append(np.asarray(same, np.bool_).reshape(-1))
    return np.concatenate(kept) if kept else np.zeros(0, np.bool_)


def _require_finite(outputs: Tensors) -> None:
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UnsupportedModel(
                "a candidate answers NaN or infinity on the held-out data", where=name, cure="check the float model"
            )


def _require_shapes(outputs: Tensors, expected: Tensors) -> None:
    # Pooling and cosines take one more axis for more tokens, and could call a wrong answer close.
    for name, array in expected.items():
        if outputs[name].shape != array.shape:
            raise UnsupportedModel(
                f"a candidate answers {list(outputs[name].shape)} where float answers {list(array.shape)}",
                where=name,
                cure="report it with the model: a pass of the export broke the graph",
            )
