"""One inference, from texts or tensors to what a person wants to read.

In: an open subject and texts or arrays. Out: an answer a text (embedding, label, labels of tokens) or raw outputs.
Must not import: torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.read_tensors import load_npz
from calibration.tokenise import Tokeniser
from exporter.evaluate import pool_outputs
from exporter.subject import Subject
from runtimes.errors import UsageError
from runtimes.protocol import Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``text`` is None for tensors. ``value`` is JSON: a vector, a label with its probability, or nested numbers."""

    kind: str
    text: str | None
    value: Any


def answer_texts(subject: Subject, texts: Sequence[str], pairs: Sequence[str], max_length: int) -> tuple[Answer, ...]:
    """Run the model once over all texts.

    Args:
        subject: The open model.
        texts: One or more texts.
        pairs: Nothing, or as many second texts.
        max_length: Tokens kept of a text (or pair).

    Raises:
        UsageError: no text, another number of second texts, or a model without a tokenizer.
    """
    if subject.tokenizer is None:
        raise UsageError("the model has no tokenizer.json beside it", cure="give --inputs file.npz")
    if pairs and len(pairs) != len(texts):
        raise UsageError(f"{len(texts)} texts and {len(pairs)} second texts", where="--pair", cure="give one a text")
    tokeniser = Tokeniser(subject.tokenizer, subject.session.inputs, max_length)
    items = list(zip(texts, pairs, strict=True)) if pairs else [(text,) for text in texts]
    encodings = tokeniser.encode(items)
    feeds = tokeniser.stack(encodings)
    outputs = subject.session.run(feeds)
    if subject.task == "feature-extraction":
        vectors = pool_outputs(outputs, feeds)
        return tuple(_make("embedding", text, row.tolist()) for text, row in zip(texts, vectors, strict=True))
    if subject.task == "text-classification":
        logits = _first(outputs)
        return tuple(_make("label", t, _name(row, subject.labels)) for t, row in zip(texts, logits, strict=True))
    if subject.task == "token-classification":
        tokens = [encoding.tokens for encoding in encodings]
        return tuple(
            _make("tokens", text, _name_tokens(words, rows, subject.labels))
            for text, words, rows in zip(texts, tokens, _first(outputs), strict=True)
        )
    return tuple(
        _make("outputs", text, {name: value[row].tolist() for name, value in outputs.items()})
        for row, text in enumerate(texts)
    )


def answer_arrays(subject: Subject, file: Path) -> tuple[Answer, ...]:
    """Run the model once over the arrays of an ``.npz``, named as its inputs; gives the raw outputs.

    Raises:
        DataError: the file is not an ``.npz``, or an array is missing, unknown or of another type.
    """
    arrays: Mapping[str, NDArray[Any]] = load_npz(file)
    outputs = subject.session.run({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return (_make("outputs", None, {name: value.tolist() for name, value in outputs.items()}),)


def _make(kind: str, text: str | None, value: object) -> Answer:
    return Answer(kind=kind, text=text, value=value)


def _first(outputs: Tensors) -> NDArray[np.float64]:
    return next(iter(outputs.values())).astype(np.float64)


def _name(logits: NDArray[np.float64], labels: Sequence[str]) -> dict[str, Any]:
    """Return the class of the largest logit and its softmax probability."""
    best = int(logits.argmax())
    # Shifted by the largest, so that no exponential overflows.
    probability = 1.0 / float(np.exp(logits - logits[best]).sum())
    return {
        "label": labels[best] if best < len(labels) else str(best),
        "probability": probability,
        "logits": logits.tolist(),
    }


def _name_tokens(tokens: Sequence[str], rows: NDArray[np.float64], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Name the class of each token; rows past the tokens are padding."""
    named = []
    for token, row in zip(tokens, rows, strict=False):
        found = _name(row, labels)
        named.append({"token": token, "label": found["label"], "probability": found["probability"]})
    return named
