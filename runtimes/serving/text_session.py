"""A session that takes texts. In: an open subject. Out: answers. Must not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from runtimes.protocol import Tensors
from runtimes.serving.answer import Answer, answer_with, open_tokeniser
from runtimes.serving.subject import Subject
from runtimes.serving.tokenise import Tokeniser


class TextSession:
    """An open model that answers texts; close it, or use it in a ``with``.

    As thread-safe as the session behind it (``subject.session.thread_safe``): ONNX Runtime's is, TensorRT's is not.

    Attributes:
        subject: The open model, with its task, class names and notes on how it runs here.
        variant: Which variant of a bundle it is; None for an exported directory.
    """

    def __init__(self, subject: Subject, *, variant: str | None = None) -> None:
        self.subject, self.variant = subject, variant
        self._tokeniser: Tokeniser | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of how it runs here, one sentence each."""
        return self.subject.notes

    def answer(self, texts: Sequence[str], pairs: Sequence[str] = ()) -> tuple[Answer, ...]:
        """Run the model once over all texts.

        Args:
            texts: One or more; for question answering, the questions.
            pairs: Nothing, or as many second texts; for question answering, where the answers are looked for.

        Raises:
            UsageError: no text, another number of second texts, or a model without a tokenizer.
        """
        if self._tokeniser is None:  # opened when it is first asked for: who feeds tensors needs no `tokenizers`
            self._tokeniser = open_tokeniser(self.subject, self.subject.max_length)
        return answer_with(self.subject, self._tokeniser, texts, pairs)

    def __call__(self, text: str, pair: str | None = None) -> Answer:
        """Answer one text (or pair)."""
        (answer,) = self.answer((text,), () if pair is None else (pair,))
        return answer

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run the model on tensors: see :meth:`runtimes.protocol.Session.run`."""
        return self.subject.session.run(feeds)

    def close(self) -> None:
        """Release what the runtime holds."""
        self.subject.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
