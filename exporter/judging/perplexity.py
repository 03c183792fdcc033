"""How well a language model tells tokens: exp of the mean cross-entropy over labelled positions.

In: an open session whose first output is logits [batch, sequence, vocabulary], and data. Out: an Evaluation.
Must not import: torch, a runtime (a session is given).

Which positions are labelled, and with what:

* an ``.npz`` file has an array of labels [samples, sequence]; position i is judged by label i, -100 is not judged;
* of texts, where the tokenizer has a mask: 15 % of the words' tokens are hidden behind it, the same ones every time,
  and the model must tell them (the loss of Devlin et al. 2019; no pseudo-perplexity, which hides one token at a time);
* of texts, where it has none, and of a decoder with a cache: every token must be told from those before it.

A decoder starts behind an empty cache; an ``.npz`` file gives its ``input_ids`` and ``attention_mask``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.data import open_dataset, open_labelled
from exporter.judging.cross_entropy import cost_tokens
from exporter.judging.evaluate import Advance, EvalData, Evaluated, Evaluation
from exporter.judging.special_tokens import SpecialIds, read_special_ids
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import IDS, MASK, find_cache
from runtimes.generation.feeds import make_step
from runtimes.protocol import Tensors

PERPLEXITY = "perplexity"
_IGNORED = -100
_MASKED_SHARE = 0.15
_SEED = 0
_BATCH_SIZE = 8

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Feeds of a batch, and the labels of its first ``len(labels)`` rows [rows, sequence]."""

    feeds: Tensors
    labels: Labels


def measure_perplexity(model: Evaluated, data: EvalData, advance: Advance) -> Evaluation:
    """Return the perplexity over all labelled positions of the data; 1 is perfect, smaller is better.

    Raises:
        DataError: the data cannot be used, or no position of it is labelled.
        UnsupportedModel: the model has no logit for every token of its vocabulary, at every position.
    """
    parts = _read_arrays(model, data) if Path(data.spec).suffix == ".npz" else _read_texts(model, data)
    total, positions, samples = 0.0, 0, 0
    for part in parts:
        losses = _measure_losses(model.session.run(part.feeds), part.labels)
        total += float(losses.sum())
        positions += len(losses)
        samples += len(part.labels)
        advance(len(part.labels))
    if not positions:
        raise DataError("no token of the data is to be told", where=data.spec, cure="give more, or longer, texts")
    mean = total / positions
    return Evaluation(metric=PERPLEXITY, value=math.exp(mean) if mean < 700 else math.inf, samples=samples)


def _read_arrays(model: Evaluated, data: EvalData) -> Iterator[_Part]:
    label, inputs = data.label_column or "labels", model.session.inputs
    cache = find_cache(inputs)
    if cache is not None:
        # Positions follow from what is padding, and nothing lies before the first token.
        inputs = tuple(spec for spec in inputs if spec.name in {IDS, MASK})
    opened = open_labelled(data.spec, label, inputs, model.tokenizer, limit=data.limit)
    for feeds, labels in opened.batches(batch_size=_BATCH_SIZE):
        if cache is not None:
            ids, mask = (np.asarray(feeds[name], np.int64) for name in (IDS, MASK))
            feeds = make_step(ids, mask, cache.empty(len(ids)))
        rows = np.asarray(labels)
        if rows.ndim != 2 or rows.dtype.kind not in "iu":
            raise DataError(
                f"labels of shape {list(rows.shape[1:])} a sample are no token at every position",
                where=f"{data.spec}:{label}",
                cure="give whole numbers [samples, sequence], -100 where nothing is to be told",
            )
        yield _Part(feeds=feeds, labels=rows.astype(np.int64))


def _read_texts(model: Evaluated, data: EvalData) -> Iterator[_Part]:
    dataset = open_dataset(
        data.spec,
        model.session.inputs,
        model.tokenizer,
        columns=data.columns,
        max_length=data.max_length,
        limit=data.limit,
    )
    assert model.tokenizer is not None, "texts were tokenised with it"
    special, is_decoder = read_special_ids(model.tokenizer), find_cache(model.session.inputs) is not None
    for indices, feeds in dataset.read(_BATCH_SIZE):
        shown = np.asarray(feeds[IDS], np.int64)
        ids = shown[: len(indices)]
        seen = np.asarray(feeds[MASK])[: len(indices)] != 0 if MASK in feeds else ~np.isin(ids, special.every)
        if special.mask is None or is_decoder:
            yield _Part(feeds=feeds, labels=_label_next(ids, seen))
            continue
        hidden = _choose_hidden(ids, seen, special, indices)
        shown = shown.copy()
        shown[: len(indices)][hidden] = special.mask
        masked = {**feeds, IDS: shown.astype(feeds[IDS].dtype)}
        yield _Part(feeds=masked, labels=np.where(hidden, ids, _IGNORED))


def _label_next(ids: Labels, seen: NDArray[np.bool_]) -> Labels:
    """Label every position with the token behind it."""
    labels = np.full_like(ids, _IGNORED)
    labels[:, :-1] = np.where(seen[:, 1:] & seen[:, :-1], ids[:, 1:], _IGNORED)
    return labels


def _choose_hidden(
    ids: Labels, seen: NDArray[np.bool_], special: SpecialIds, indices: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Draw for each sample by its own place in the data: in whatever batch it comes, the same tokens are hidden."""
    drawn = np.stack([np.random.default_rng((_SEED, index)).random(ids.shape[1]) for index in indices])
    chosen: NDArray[np.bool_] = (drawn < _MASKED_SHARE) & seen & ~np.isin(ids, special.every)
    return chosen


def _measure_losses(outputs: Tensors, labels: Labels) -> NDArray[np.float64]:
    """Return the cross-entropy at each labelled position."""
    name, logits = next(iter(outputs.items()))
    if logits.ndim != 3 or logits.dtype.kind != "f" or logits.shape[1] != labels.shape[1]:
        raise UnsupportedModel(
            f"{name} {logits.dtype}{list(logits.shape)} holds no logits of every token at every position",
            cure="evaluate a language model (--task fill-mask)",
        )
    told = labels != _IGNORED
    wanted = labels[told]
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < logits.shape[2]:
        raise DataError(
            f"label {int(wanted.max())} is no token of the model's {logits.shape[2]}",
            cure="label with token ids of this model, -100 where nothing is to be told",
        )
    # Sample by sample: what is labelled of a batch is a copy nearly as large as its logits. Where the batch is fixed,
    # there may be more rows than samples.
    costs = [cost_tokens(row[here], ids[here]) for row, ids, here in zip(logits, labels, told, strict=False)]
    return np.concatenate(costs)
