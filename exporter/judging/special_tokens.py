"""The ids of a ``tokenizer.json`` that are no words. Needs ``tokenizers``; must not import torch or transformers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

# What is no word, where the tokenizer does not mark it: BERT's and RoBERTa's.
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "<pad>", "</s>", "<unk>", "<mask>")
_MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """``mask`` is None where the tokenizer has none; ``every`` are all of them, in order."""

    mask: int | None
    every: tuple[int, ...]


def read_special_ids(tokenizer: Path) -> SpecialIds:
    """Return what is marked as special, and what is so by its name."""
    from tokenizers import Tokenizer

    opened = Tokenizer.from_buffer(tokenizer.read_bytes())
    marked = [number for number, token in opened.get_added_tokens_decoder().items() if token.special]
    every = {number for number in chain(marked, map(opened.token_to_id, _SPECIAL)) if number is not None}
    masks = [number for number in map(opened.token_to_id, _MASKS) if number is not None]
    return SpecialIds(mask=masks[0] if masks else None, every=tuple(sorted(every)))
