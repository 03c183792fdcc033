"""Texts and a ``tokenizer.json`` in, token tensors out. Needs ``tokenizers``; must not import transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError, MissingDependency
from runtimes.generation.cache_spec import IDS, MASK, find_cache
from runtimes.generation.feeds import make_step
from runtimes.tokenizer_errors import tokenizer_errors

if TYPE_CHECKING:
    from tokenizers import Encoding

Feeds = dict[str, NDArray[np.generic]]
#: The tokens of one text: a vector an input.
Tokens = dict[str, NDArray[np.generic]]
_ENCODED_AT_ONCE = 64

#: What a tokenizer can fill in, by the names Hugging Face models give their inputs.
_FIELDS: dict[str, Callable[[Encoding], list[int]]] = {
    "input_ids": lambda encoding: encoding.ids,
    "attention_mask": lambda encoding: encoding.attention_mask,
    "token_type_ids": lambda encoding: encoding.type_ids,
}
#: The inputs that texts can fill.
TEXT_INPUTS = frozenset(_FIELDS)
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
_MASK_TOKENS = ("[MASK]", "<mask>")


class Tokeniser:
    """Turns texts into the token inputs a graph asks for: truncated to ``max_length``, padded to the batch's longest.

    A fixed sequence axis in ``inputs`` wins over ``max_length``: every batch is then padded to exactly that length.
    """

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], max_length: int, data: bytes | None = None) -> None:
        """Read ``path``, or take what was in it when it was checked.

        Raises:
            DataError: an input that no tokenizer can fill.
            CorruptArtifact: ``path`` is not a tokenizer.
            MissingDependency: the ``tokenizers`` package is missing.
        """
        self._cache = find_cache(inputs)
        if self._cache is not None:
            # Positions follow from what is padding, and nothing lies before the first token.
            inputs = [spec for spec in inputs if spec.name in (IDS, MASK)]
        unknown = [spec.name for spec in inputs if spec.name not in _FIELDS]
        if unknown:
            cure = f"give the inputs as .npz or module:callable; texts can fill {', '.join(_FIELDS)}"
            raise DataError("texts cannot fill a model input", where=", ".join(unknown), cure=cure)
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency("tokenizers is not installed", cure='pip install "stepdown[device]"') from error
        self._path = path
        data = path.read_bytes() if data is None else data
        with tokenizer_errors("not a tokenizer", str(path)):
            self._tokenizer = Tokenizer.from_buffer(data)
        fixed = [axis for spec in inputs for axis in spec.shape[1:] if isinstance(axis, int)]
        self.fixed_length = min(fixed) if fixed else None
        self.max_length = self.fixed_length or max_length
        self._inputs = tuple(inputs)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)
        self.padding_id = self._find_id(_PADDING_TOKENS) or 0
        self._mask_id = self._find_id(_MASK_TOKENS)
        sha256 = hashlib.sha256(data).hexdigest()
        self.identity = f"{sha256}:{self.max_length}:{self.fixed_length}:{[spec.name for spec in inputs]}"

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Encoding]:
        """Return one encoding a text (or pair), without padding.

        Raises:
            CorruptArtifact: the tokenizer contradicts itself, and this is a text for which that shows.
        """
        items = [text if len(text) == 2 else text[0] for text in texts]
        with tokenizer_errors("the tokenizer does not take this text", str(self._path)):
            return list(self._tokenizer.encode_batch(items))

    def find_masks(self, encoding: Encoding) -> list[int]:
        """Return where the tokens stand that the model is asked to fill in."""
        return [place for place, token in enumerate(encoding.ids) if token == self._mask_id]

    def name_token(self, number: int) -> str:
        """Return the text of a token, without the marks that join it to others."""
        return str(self._tokenizer.decode([number], skip_special_tokens=False)).strip()

    def tokenise(self, texts: Sequence[tuple[str, ...]]) -> list[Tokens]:
        """Return the tokens of each text (or pair), without padding.

        An encoding also holds strings, offsets and what was cut off, a hundred times the tokens: few live at a time.
        """
        return [
            self._take_tokens(encoding)
            for start in range(0, len(texts), _ENCODED_AT_ONCE)
            for encoding in self.encode(texts[start : start + _ENCODED_AT_ONCE])
        ]

    def _find_id(self, tokens: Sequence[str]) -> int | None:
        known = (self._tokenizer.token_to_id(token) for token in tokens)
        return next((token for token in known if token is not None), None)

    def _take_tokens(self, encoding: Encoding) -> Tokens:
        return {spec.name: np.array(_FIELDS[spec.name](encoding), dtype=spec.dtype) for spec in self._inputs}

    def stack(self, encodings: Sequence[Encoding]) -> Feeds:
        """Return the feeds of a batch of encodings; see :meth:`stack_tokens`."""
        return self.stack_tokens([self._take_tokens(encoding) for encoding in encodings])

    def stack_tokens(self, rows: Sequence[Tokens]) -> Feeds:
        """Return the feeds of a batch, each ``[batch, sequence]`` in its input's dtype, padded at the end.

        A decoder goes on behind the last token, so its rows are padded at the start; its cache is empty.
        """
        length = self.fixed_length or max(count_tokens(row) for row in rows)
        feeds: Feeds = {}
        for spec in self._inputs:
            padding = self.padding_id if spec.name == "input_ids" else 0
            filled = np.full((len(rows), length), padding, dtype=spec.dtype)
            for place, row in enumerate(rows):
                start = 0 if self._cache is None else length - count_tokens(row)
                filled[place, start : start + count_tokens(row)] = row[spec.name]
            feeds[spec.name] = filled
        if self._cache is None:
            return feeds
        return make_step(feeds[IDS].astype(np.int64), feeds[MASK].astype(np.int64), self._cache.empty(len(rows)))


def count_tokens(row: Tokens) -> int:
    """Return the number of tokens of one text."""
    return len(next(iter(row.values())))
