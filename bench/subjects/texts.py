"""Texts and shapes to feeds, for every subject alike.

In: a ``tokenizer.json`` and texts, or a shape. Out: int64 arrays by input name. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtimes.artifact import TensorSpec
from runtimes.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Feeds = dict[str, NDArray[np.int64]]


def open_tokenizer(path: Path, *, max_length: int) -> Tokenizer:
    """Open a ``tokenizer.json`` that cuts at ``max_length`` tokens and pads a batch to its longest text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_length)
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))
    return tokenizer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> Feeds:
    """Encode one batch: ``input_ids``, ``attention_mask``, ``token_type_ids``, each int64 [batch, sequence]."""
    encoded = tokenizer.encode_batch(list(texts))
    return {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
        "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
    }


def make_feeds(tokenizer: Tokenizer, batch: int, sequence: int, *, seed: int = 0) -> Feeds:
    """Return random tokens of an exact shape, nothing padded."""
    ids = np.random.default_rng(seed).integers(0, tokenizer.get_vocab_size(), (batch, sequence), np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def select_feeds(inputs: Sequence[TensorSpec], feeds: Feeds) -> Feeds:
    """Return the feeds that a model takes.

    Raises:
        DataError: it takes one that there is none of.
    """
    missing = [spec.name for spec in inputs if spec.name not in feeds]
    if missing:
        raise DataError(f"the model takes {', '.join(missing)}", cure=f"use a model that takes {', '.join(feeds)}")
    return {spec.name: feeds[spec.name] for spec in inputs}
