"""Tokens out of tokens: one run of onnxruntime-genai's loop over a batch.

In: an open model of it, and rows of token ids. Out: the new tokens of every row, step by step. Must not import a
runtime: the module is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UsageError
from runtimes.generation.genai import genai_errors
from runtimes.generation.layout import Layout
from runtimes.generation.options import MAX_BATCH, GenerationOptions

if TYPE_CHECKING:
    import onnxruntime_genai

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model of onnxruntime-genai, with the module and the folder that it came from."""

    genai: ModuleType
    model: onnxruntime_genai.Model
    layout: Layout


def check_rows(rows: Rows, layout: Layout) -> None:
    """Refuse prompts that cannot be answered.

    Raises:
        UsageError: there is none or there are too many; one is empty, longer than the context, or names a token that
            the model does not have; or one of several ends with padding.
    """
    if not 1 <= len(rows) <= MAX_BATCH:
        raise UsageError(f"{len(rows)} prompts", where="prompts", cure=f"give 1 to {MAX_BATCH} at once")
    for number, row in enumerate(rows):
        where = f"prompt {number}" if len(rows) > 1 else "prompt"
        if not row:
            raise UsageError("the prompt is empty", where=where, cure="give some text")
        if not all(0 <= token < layout.vocabulary for token in row):
            cure = f"give ids from 0 to {layout.vocabulary - 1}"
            raise UsageError("the prompt has a token that the model does not have", where=where, cure=cure)
        if len(row) >= layout.context:
            raise UsageError(
                f"the prompt has {len(row)} tokens, and the model takes {layout.context} with the answer",
                where=where,
                cure="shorten it, or export with a larger --max-length where the model was trained for more",
            )
        # onnxruntime-genai takes what a row of a batch ends with for padding, filled up or not.
        if len(rows) > 1 and row[-1] == layout.padding_id:
            cure = "answer it by itself, or end it with another token"
            raise UsageError("the prompt ends with padding, or is nothing else", where=where, cure=cure)


def run_steps(opened: OpenModel, rows: Rows, options: GenerationOptions) -> Iterator[tuple[NDArray[np.int32], bool]]:
    """Yield the next token of every row [rows], and whether it is the last step; a row that has ended gets padding.

    One sequence is followed a row: for beams see :func:`run_beams`.

    Raises:
        UsageError: see :func:`check_rows`.
    """
    with genai_errors(str(opened.layout.directory)):
        generator = _start(opened, rows, options)
        is_done = False
        while not is_done:
            generator.generate_next_token()
            tokens, is_done = generator.get_next_tokens().copy(), generator.is_done()
            yield tokens, is_done


def run_beams(opened: OpenModel, rows: Rows, options: GenerationOptions) -> list[list[int]]:
    """Return the new tokens of the best sequence of every row, padding behind its end included."""
    longest = max(map(len, rows))
    with genai_errors(str(opened.layout.directory)):
        generator = _start(opened, rows, options)
        while not generator.is_done():
            generator.generate_next_token()
        return [generator.get_sequence(row)[longest:].tolist() for row in range(len(rows))]


def count_room(rows: Rows, layout: Layout, options: GenerationOptions) -> int:
    """Return the most tokens that an answer of the batch may have."""
    return min(options.max_new_tokens, layout.context - max(map(len, rows)))


def _start(opened: OpenModel, rows: Rows, options: GenerationOptions) -> onnxruntime_genai.Generator:
    check_rows(rows, opened.layout)
    options.check_vocabulary(opened.layout.vocabulary)
    return start(opened, rows, count_room(rows, opened.layout, options), options.list_search())


def start(
    opened: OpenModel, rows: Rows, room: int, search: Mapping[str, bool | int | float]
) -> onnxruntime_genai.Generator:
    """Return a generator of onnxruntime-genai that has read the prompts.

    Args:
        opened: The open model.
        rows: The prompts, checked (:func:`check_rows`).
        room: The most tokens of an answer.
        search: How tokens are chosen, by onnxruntime-genai's names.
    """
    layout = opened.layout
    params = opened.genai.GeneratorParams(opened.model)
    params.set_search_options(batch_size=len(rows), max_length=max(map(len, rows)) + room, **search)
    generator = opened.genai.Generator(opened.model, params)
    for part in _split_prompt(rows[0], layout.padding_id) if len(rows) == 1 else [_fill_up(rows, layout.padding_id)]:
        generator.append_tokens(part)
    return generator


def _fill_up(rows: Rows, padding: int) -> NDArray[np.int32]:
    """Return rows as one array, row by row, each with padding behind it: there onnxruntime-genai looks for it."""
    filled = np.full((len(rows), max(map(len, rows))), padding, np.int32)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row
    return filled.ravel()


def _split_prompt(row: Sequence[int], padding: int) -> list[NDArray[np.int32]]:
    """Return a prompt in parts: what it ends with that looks like padding comes token by token.

    onnxruntime-genai 0.18 answers behind the last token that is no padding, even where nothing is filled up; a single
    token it takes for what it is. Models that pad with the token that ends a text meet that in a prompt.
    """
    body = len(row)
    while body and row[body - 1] == padding:
        body -= 1
    parts = [row[:body], *([token] for token in row[body:])]
    return [np.array(part, np.int32) for part in parts if part]
