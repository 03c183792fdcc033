"""Whether a decoder writes here what it wrote where it was packed: stored prompts, and the likeliest tokens behind.

In: an open decoder, and the arrays of a probe. Out: :class:`TokenVerdict`. Must not import a runtime.

A probe holds, for each prompt N, ``text.N`` (UTF-8) and its ``ids.N``; ``logits.N`` behind the prompt; and of each
step after it the token taken (``tokens.N``), its logit (``peaks.N``) and by how much that was above the next
(``margins.N``).

Arithmetic of another CPU moves each logit by at most ``a = atol + rtol * |logit|`` of the stored tolerance, or the
logits themselves are out of it. So it moves two of them by at most 2a against each other: where the margin was larger,
the token must be the same; where it was smaller, another may come that is at most ``2a - margin`` above the stored one,
and behind it nothing is compared, for the text goes another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtimes.generation.steps import OpenModel, start
from runtimes.parity import Tolerance, compare

#: What a probe may hold.
MAX_PROMPTS, MAX_STEPS, MAX_TEXT_BYTES = 8, 64, 1 << 16
# The likeliest token each time, whatever the model's own settings say.
_GREEDY: Mapping[str, bool | int | float] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}

Arrays = Mapping[str, NDArray[Any]]
#: The token that the loop took, and the logits that it took it by, float32 [vocabulary].
Step = tuple[int, NDArray[np.float32]]


class Traceable(Protocol):
    """What is probed: :class:`runtimes.generation.generator.Generator` is one."""

    def encode(self, prompt: str) -> list[int]:
        """Return the tokens of a text."""
        ...

    def trace(self, ids: Sequence[int], count: int) -> Iterator[Step]:
        """Yield the likeliest tokens behind a prompt with their logits; see :func:`trace_greedily`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMismatch:
    """What is wrong, what the probe holds, what came here, and what to do."""

    what: str
    expected: str
    found: str
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVerdict:
    """``said`` tells how much was compared; ``mismatch`` is None where all of it agrees."""

    said: str
    mismatch: TokenMismatch | None = None


def trace_greedily(opened: OpenModel, ids: Sequence[int], count: int) -> Iterator[Step]:
    """Yield up to ``count`` of the likeliest tokens behind a prompt, as the loop takes them, with their logits."""
    generator = start(opened, (ids,), count, _GREEDY)
    is_done = False
    while not is_done:
        logits = np.array(generator.get_logits(), np.float32).reshape(-1, opened.layout.vocabulary)[-1]
        generator.generate_next_token()
        yield int(generator.get_next_tokens()[0]), logits
        is_done = generator.is_done()


def record_answer(steps: Iterator[Step]) -> dict[str, NDArray[Any]]:
    """Return what a probe keeps of an answer, by the kind of each array."""
    taken = list(steps)
    tokens = np.array([token for token, _ in taken], np.int64)
    tops = np.array([np.sort(logits)[-2:] for _, logits in taken], np.float32)
    return {"logits": taken[0][1], "tokens": tokens, "peaks": tops[:, -1], "margins": tops[:, -1] - tops[:, 0]}


def compare_answers(model: Traceable, inputs: Arrays, outputs: Arrays, tolerance: Tolerance) -> TokenVerdict:
    """Let a model answer the stored prompts, and compare.

    Args:
        model: The open decoder.
        inputs: ``text.N`` and ``ids.N``.
        outputs: ``logits.N``, ``tokens.N``, ``peaks.N`` and ``margins.N``.
        tolerance: By how much a logit may be off.
    """
    expected: dict[str, NDArray[Any]] = {}
    found: dict[str, NDArray[Any]] = {}
    same, stored = 0, 0
    for number in range(len(inputs) // 2):
        ids = inputs[f"ids.{number}"].tolist()
        text = inputs[f"text.{number}"].tobytes().decode("utf-8")
        encoded = model.encode(text)
        if encoded != ids:
            return TokenVerdict(said="the tokens of a text are others", mismatch=_explain_tokenizer(text, ids, encoded))
        answer = {kind: outputs[f"{kind}.{number}"] for kind in ("logits", "tokens", "peaks", "margins")}
        steps = list(_follow(model.trace(ids, len(answer["tokens"])), answer["tokens"]))
        agreed = [token == answer["tokens"][place] for place, (token, _) in enumerate(steps)]
        same, stored = same + sum(agreed), stored + len(answer["tokens"])
        last = len(steps) - 1
        if not agreed[last] and not _may_part(steps[last], answer, last, tolerance):
            said = f"{same} of {stored} tokens as stored, then another"
            return TokenVerdict(said=said, mismatch=_explain_token(number, last, steps[last], answer))
        expected |= {f"logits.{number}": answer["logits"], f"peaks.{number}": answer["peaks"][: last + 1]}
        peaks = [logits[answer["tokens"][place]] for place, (_, logits) in enumerate(steps)]
        found |= {f"logits.{number}": steps[0][1], f"peaks.{number}": np.array(peaks, np.float32)}
    report = compare(expected, found, tolerance)
    lowest = min(one.cosine for one in report.outputs)
    said = f"{same} of {stored} tokens as stored, and their logits (cosine {lowest:.6f})"
    if same < stored:
        said += "; where the text went another way, arithmetic may have turned it"
    if report.verdict == "pass":
        return TokenVerdict(said=said)
    return TokenVerdict(said=report.message, mismatch=_explain_logits(report.message, tolerance))


def _follow(steps: Iterator[Step], tokens: NDArray[np.int64]) -> Iterator[Step]:
    """Yield the steps up to the first that takes another token than the stored one, itself included."""
    for (token, logits), stored in zip(steps, tokens, strict=False):
        yield token, logits
        if token != stored:
            return


def _may_part(step: Step, answer: Arrays, place: int, tolerance: Tolerance) -> bool:
    """Whether arithmetic alone may have made another token the likeliest; see the module."""
    token, logits = step
    if logits[token] < logits.max():
        return False
    moved = 2 * (tolerance.atol + tolerance.rtol * abs(float(answer["peaks"][place])))
    short = float(logits[token]) - float(logits[answer["tokens"][place]])
    return short <= max(0.0, moved - float(answer["margins"][place]))


def _explain_tokenizer(text: str, ids: Sequence[int], found: Sequence[int]) -> TokenMismatch:
    return TokenMismatch(
        what=f"the tokenizer gives other tokens for {text[:40]!r}",
        expected=_shorten(ids),
        found=_shorten(found),
        cure="pack it with the tokenizer of this very model, or install the tokenizers that packed it (made_with)",
    )


def _explain_token(number: int, place: int, step: Step, answer: Arrays) -> TokenMismatch:
    token, logits = step
    stored = int(answer["tokens"][place])
    return TokenMismatch(
        what=f"token {place} behind prompt {number} is another, and not for want of exact arithmetic",
        expected=f"{stored}, {float(answer['margins'][place]):.4g} above any other",
        found=f"{token}, {float(logits[token] - logits[stored]):.4g} above it",
        cure="pack it again on a machine like this one, and report it where that does not help",
    )


def _explain_logits(found: str, tolerance: Tolerance) -> TokenMismatch:
    bound = f"atol {tolerance.atol:g}, rtol {tolerance.rtol:g}, cosine at least {tolerance.min_cosine}"
    return TokenMismatch(
        what="the model does not answer here as it did where it was packed",
        expected=f"{bound} ({tolerance.reason})",
        found=found,
        cure="pack it again on a machine like this one, and report it where that does not help",
    )


def _shorten(ids: Sequence[int]) -> str:
    return f"{list(ids)[:12]}{' ...' if len(ids) > 12 else ''}"
