"""From texts to what a person wants to read, for every task.

In: an open subject and texts. Out: an answer a text: an embedding, a label, labels of tokens, the words that answer a
question, words for a mask, or raw outputs. Must not import: torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UsageError
from runtimes.generation.cache_spec import find_cache
from runtimes.protocol import Tensors
from runtimes.serving.masked import fill_masks
from runtimes.serving.pool import pool_outputs
from runtimes.serving.softmax import name_class
from runtimes.serving.span import find_span
from runtimes.serving.subject import Subject
from runtimes.serving.tokenise import Tokeniser

if TYPE_CHECKING:
    from tokenizers import Encoding


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
        texts: One or more texts; for question answering, the questions.
        pairs: Nothing, or as many second texts; for question answering, where the answers are looked for.
        max_length: Tokens kept of a text (or pair).

    Raises:
        UsageError: no text, another number of second texts, or a model without a tokenizer.
    """
    return answer_with(subject, open_tokeniser(subject, max_length), texts, pairs)


def open_tokeniser(subject: Subject, max_length: int) -> Tokeniser:
    """Return what turns texts into the inputs of a model.

    Raises:
        UsageError: the model has no tokenizer, or generates text: it has no answer to one as it stands.
    """
    if find_cache(subject.session.inputs) is not None:
        cure = "give --prompt (in Python: stepdown.open_generator, or open_bundle(path).generator())"
        raise UsageError("the model generates text, token by token", where="--text", cure=cure)
    if subject.tokenizer is None:
        raise UsageError("the model has no tokenizer.json beside it", cure="give --inputs file.npz")
    return Tokeniser(subject.tokenizer, subject.session.inputs, max_length, subject.tokenizer_bytes)


def answer_with(
    subject: Subject, tokeniser: Tokeniser, texts: Sequence[str], pairs: Sequence[str]
) -> tuple[Answer, ...]:
    """Run the model once over all texts, with its tokeniser open already; see :func:`answer_texts`."""
    if not texts:
        raise UsageError("there is no text", where="--text", cure="give at least one")
    if pairs and len(pairs) != len(texts):
        raise UsageError(f"{len(texts)} texts and {len(pairs)} second texts", where="--pair", cure="give one a text")
    items = list(zip(texts, pairs, strict=True)) if pairs else [(text,) for text in texts]
    encodings = tokeniser.encode(items)
    feeds = tokeniser.stack(encodings)
    outputs = subject.session.run(feeds)
    if subject.task == "feature-extraction":
        vectors = pool_outputs(outputs, feeds)
        return tuple(_make("embedding", text, row.tolist()) for text, row in zip(texts, vectors, strict=True))
    if subject.task == "text-classification":
        logits = _first(outputs)
        return tuple(_make("label", t, name_class(row, subject.labels)) for t, row in zip(texts, logits, strict=True))
    if subject.task == "token-classification":
        named = zip(texts, encodings, _first(outputs), strict=True)
        return tuple(_make("tokens", text, _name_tokens(it.tokens, rows, subject.labels)) for text, it, rows in named)
    if subject.task == "question-answering" and pairs and len(outputs) >= 2:
        return _answer_questions(texts, pairs, encodings, outputs)
    if subject.task == "fill-mask" and all(tokeniser.find_masks(it) for it in encodings):
        filled = zip(texts, encodings, _first(outputs), strict=True)
        return tuple(
            _make("masks", text, fill_masks(rows, tokeniser.find_masks(it), tokeniser.name_token))
            for text, it, rows in filled
        )
    return tuple(
        _make("outputs", text, {name: value[row].tolist() for name, value in outputs.items()})
        for row, text in enumerate(texts)
    )


def _make(kind: str, text: str | None, value: object) -> Answer:
    return Answer(kind=kind, text=text, value=value)


def _first(outputs: Tensors) -> NDArray[np.float64]:
    return next(iter(outputs.values())).astype(np.float64)


def _answer_questions(
    texts: Sequence[str], pairs: Sequence[str], encodings: Sequence[Encoding], outputs: Tensors
) -> tuple[Answer, ...]:
    """Find each question's answer by the first two outputs: logits of where it starts and where it ends."""
    starts, ends = (value.astype(np.float64) for value in list(outputs.values())[:2])
    rows = zip(texts, pairs, encodings, starts, ends, strict=True)
    return tuple(_make("span", text, find_span(pair, it, start, end)) for text, pair, it, start, end in rows)


def _name_tokens(tokens: Sequence[str], rows: NDArray[np.float64], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Name the class of each token; rows past the tokens are padding."""
    named = []
    for token, row in zip(tokens, rows, strict=False):
        found = name_class(row, labels)
        named.append({"token": token, "label": found["label"], "probability": found["probability"]})
    return named
