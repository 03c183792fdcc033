"""How good a model's answers are on labelled data.

In: an open session and data. Out: a number with its name and the number of samples behind it.
Must not import: torch, scipy, a runtime (a session is given).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.data import Dataset, LabelledDataset, open_dataset, open_labelled
from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, UnsupportedModel, UsageError
from runtimes.protocol import Session, Tensors
from runtimes.serving.pool import pool_outputs

#: What several models can be compared by; all are better when larger.
METRICS = ("accuracy", "macro-f1", "spearman", "cosine")
Floats = NDArray[np.float64]


class Advance(Protocol):
    """Told how many more samples are done."""

    def __call__(self, count: int) -> None:
        """Take the count."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalData:
    """Where the data is and how to read it; ``columns`` empty finds the text columns by name."""

    spec: str
    label_column: str | None = None
    columns: tuple[str, ...] = ()
    max_length: int = 128
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """``value`` of ``metric`` over ``samples`` samples; better when larger, but for perplexity."""

    metric: str
    value: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What is evaluated: an open session and what belongs to it. ``labels`` names the classes by index."""

    session: Session
    tokenizer: Path | None
    labels: tuple[str, ...] = ()


def choose_metric(task: str | None) -> str:
    """Return the metric for a task where the user named none.

    Raises:
        UsageError: the task has no obvious one.
    """
    known = {"text-classification": "accuracy", "feature-extraction": "spearman", "text-generation": "perplexity"}
    chosen = known.get(task or "")
    if chosen is None:
        raise UsageError(
            f"no metric belongs to the task {task}", where="--metric", cure=f"name one: {', '.join(METRICS)}"
        )
    return chosen


def check_metric(name: str, known: Sequence[str] = METRICS) -> None:
    """Raise UsageError where there is no such metric."""
    if name not in known:
        raise UsageError(f"unknown metric {name!r}", where="--metric", cure=f"use one of {', '.join(known)}")


def evaluate(model: Evaluated, data: EvalData, metric: str, advance: Advance) -> Evaluation:
    """Measure ``metric`` of a model against the labels of the data.

    ``accuracy`` and ``macro-f1`` compare the class of the largest logit with the label (a class name or index).
    ``spearman`` compares the cosine of two texts' embeddings with the pair's score.

    Raises:
        UsageError: the metric is unknown, or is ``cosine``, which needs a reference (see :func:`evaluate_cosine`).
        DataError: the data or its labels cannot be used.
        UnsupportedModel: the model gives nothing the metric can use.
    """
    if metric in {"accuracy", "macro-f1"}:
        predicted, expected = _classify(model, data, advance)
        score = accuracy(predicted, expected) if metric == "accuracy" else macro_f1(predicted, expected)
        return Evaluation(metric=metric, value=score, samples=len(expected))
    if metric == "spearman":
        similarities, scores = _compare_pairs(model, data, advance)
        return Evaluation(metric=metric, value=spearman(similarities, scores), samples=len(scores))
    raise UsageError(
        f"the metric {metric!r} does not compare with labels", where="--metric", cure="accuracy, macro-f1 or spearman"
    )


def evaluate_cosine(model: Evaluated, reference: Evaluated, data: EvalData, advance: Advance) -> Evaluation:
    """Return the mean cosine between the first outputs of two models, sample by sample; the data needs no labels.

    Any task will do: an output of one vector a token is averaged over the tokens (see :func:`pool_outputs`), and one
    of a number a token is compared as it is.

    Raises:
        DataError: the data cannot be used.
        UnsupportedModel: the two models answer with vectors of different widths.
    """
    first, second = (_pad_rows(_embed(one, _open_texts(one, data), advance)) for one in (model, reference))
    if first.shape != second.shape:
        raise UnsupportedModel(
            f"one model answers {first.shape[1]} numbers a sample, the other {second.shape[1]}",
            where="--reference",
            cure="compare two models of one task and one width",
        )
    return Evaluation(metric="cosine", value=float(cosine_samples(first, second).mean()), samples=len(first))


def accuracy(predicted: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Return the fraction of equal entries."""
    return float((predicted == expected).mean())


def macro_f1(predicted: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Return the unweighted mean of F1 over the classes that occur; a class never predicted counts as 0."""
    scores = []
    for label in np.union1d(predicted, expected):
        hits = int(((predicted == label) & (expected == label)).sum())
        said, meant = int((predicted == label).sum()), int((expected == label).sum())
        scores.append(2 * hits / (said + meant))
    return float(np.mean(scores))


def spearman(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    Raises:
        DataError: all values of one side are equal, so there is no rank to correlate.
    """
    ranks = [_rank(values) - (len(values) + 1) / 2 for values in (first, second)]
    spread = [float(np.sqrt((rank**2).sum())) for rank in ranks]
    if min(spread) == 0:
        raise DataError("all values are equal, so Spearman is undefined", cure="give data with different scores")
    return float((ranks[0] * ranks[1]).sum() / (spread[0] * spread[1]))


def _rank(values: Floats) -> Floats:
    """Return ranks from 1; ties get the mean of the ranks they cover."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Floats = last - (counts - 1) / 2
    return means[inverse]


def cosine_rows(first: Floats, second: Floats) -> Floats:
    """Return the cosine of each row of two (samples, width) matrices; of a zero row 1 to another, 0 to the rest.

    A row with an infinity has none: NaN.
    """
    lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    with np.errstate(invalid="ignore"):
        products: Floats = (first * second).sum(axis=1)
        norms = lengths[0] * lengths[1]
        both_zero = (lengths[0] == 0) & (lengths[1] == 0)
        return np.divide(products, norms, out=both_zero.astype(np.float64), where=norms > 0)


def cosine_samples(first: Floats, second: Floats) -> Floats:
    """Return the cosine of each sample's vector, of two (samples, width) matrices.

    One number a sample (a reranker's logit) has no direction: all samples together are one vector then.
    """
    return cosine_rows(first.T, second.T) if first.shape[1] == 1 else cosine_rows(first, second)


def _open_texts(model: Evaluated, data: EvalData) -> Dataset:
    return open_dataset(
        data.spec,
        model.session.inputs,
        model.tokenizer,
        columns=data.columns,
        max_length=data.max_length,
        limit=data.limit,
    )


def _open_labels(model: Evaluated, data: EvalData, label_column: str, columns: Sequence[str]) -> LabelledDataset:
    return open_labelled(
        data.spec,
        label_column,
        model.session.inputs,
        model.tokenizer,
        columns=columns,
        max_length=data.max_length,
        limit=data.limit,
    )


def _pad_rows(rows: Sequence[Floats]) -> Floats:
    """Return the vectors as one matrix, filled up with zeros, which change no cosine."""
    padded = np.zeros((len(rows), max(map(len, rows))))
    for row, vector in zip(padded, rows, strict=True):
        row[: len(vector)] = vector
    return padded


def _embed(model: Evaluated, dataset: Dataset, advance: Advance) -> list[Floats]:
    """Return one vector a sample in the dataset's order; of a number a token, as long as its batch's longest text."""
    place = {index: row for row, index in enumerate(dataset.indices)}
    rows: dict[int, Floats] = {}
    for indices, feeds in dataset.read(8):
        pooled = pool_outputs(model.session.run(feeds), feeds)
        rows.update((place[index], vector) for index, vector in zip(indices, pooled, strict=False))
        advance(len(indices))
    return [rows[row] for row in range(len(rows))]


def _compare_pairs(model: Evaluated, data: EvalData, advance: Advance) -> tuple[Floats, Floats]:
    """Return (cosine of the two texts' embeddings, score), one a pair."""
    columns = data.columns or ("text_a", "text_b")
    if len(columns) != 2:
        raise UsageError("spearman compares two texts", where="--column", cure="name two columns")
    label = data.label_column or "score"
    pairs = _open_labels(model, data, label, columns)
    embedded = [_embed(model, side, advance) for side in pairs.dataset.sides()]
    if len({len(vector) for side in embedded for vector in side}) > 1:
        raise UnsupportedModel(
            "the model answers one number a token: no embedding to compare two texts by",
            where="--metric spearman",
            cure="use a model that embeds texts, or --metric cosine",
        )
    return cosine_rows(*map(np.stack, embedded)), np.array(
        [_read_score(score, data.spec, label) for score in pairs.labels]
    )


def _read_score(score: object, spec: str, column: str) -> float:
    try:
        value = float(str(score))
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{score!r} is not a number", where=f"{spec}:{column}", cure="name the column with the score")
    return value


def _classify(model: Evaluated, data: EvalData, advance: Advance) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (class of the largest logit, class of the label), one a sample."""
    label = data.label_column or "label"
    labelled = _open_labels(model, data, label, data.columns)
    predicted: list[int] = []
    expected: list[int] = []
    for feeds, labels in labelled.batches():
        logits = _find_logits(model.session.run(feeds), model.session.outputs)
        expected += [read_class(given, model.labels, logits.shape[1], f"{data.spec}:{label}") for given in labels]
        predicted += logits.argmax(axis=1)[: len(labels)].tolist()
        advance(len(labels))
    return np.array(predicted, np.int64), np.array(expected, np.int64)


def _find_logits(outputs: Tensors, specs: Sequence[TensorSpec]) -> NDArray[Any]:
    name, logits = next(iter(outputs.items()))
    if logits.ndim != 2 or logits.dtype.kind != "f":
        raise UnsupportedModel(
            f"{name} {specs[0].dtype}{list(specs[0].shape)} holds no logits of one class a sample",
            cure="evaluate a classifier, or use --metric spearman, cosine or, of a language model, perplexity",
        )
    return logits


def read_class(given: object, names: Sequence[str], count: int, where: str) -> int:
    """Turn a label (a class name or an index) into an index."""
    word = str(given)
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < count:
        return int(word)
    known = ", ".join(names) or f"0 to {count - 1}"
    raise DataError(f"the model has no class {word!r}", where=where, cure=f"label with one of: {known}")
