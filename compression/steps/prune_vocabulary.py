"""``do = "prune-vocabulary"``: pieces that the data does not use leave tokenizer and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compression.context import Context
from compression.options import OptionError
from compression.recipe import Facts
from compression.samples import Samples
from compression.training.loop import Training
from compression.words.embedding_rows import keep_rows, list_special_ids
from compression.words.tokenizer_files import read_tokenizer, write_smaller
from compression.words.vocabulary import choose_pieces, read_vocabulary
from runtimes.errors import DataError, UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What stays.

    Attributes:
        min_count: Pieces stay that the data has at least so often; 1 keeps every text of the data as it is.
        size: At most so many pieces stay, the most frequent ones; None for no limit.
        alphabet: ``all`` keeps every single character, so that nothing becomes unknown that was not; ``seen`` those
            that occur in the data, where others become unknown.
        train: How to recover; None leaves that to a later step.
    """

    min_count: int = 1
    size: int | None = None
    alphabet: Literal["all", "seen"] = "all"
    train: Training | None = None

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise OptionError("min_count", f"{self.min_count} is below 1", "give a whole number of at least 1")
        if self.size is not None and self.size < 1:
            raise OptionError("size", f"{self.size} pieces are no vocabulary", "give a whole number of at least 1")


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Write a smaller tokenizer, keep its rows of the embeddings, and train where asked."""
    tokenizer = read_tokenizer(context.files)
    tokens = context.tokens
    named = {*tokens.every, tokens.padding, *(() if tokens.mask is None else (tokens.mask,))}
    vocabulary = read_vocabulary(tokenizer, also=named | list_special_ids(model))
    config: Any = model.config
    rows = int(config.vocab_size)
    if len(vocabulary.pieces) > rows:
        raise UnsupportedModel(
            f"the tokenizer has {len(vocabulary.pieces)} ids and the model rows for {rows}",
            where="tokenizer.json",
            cure="put the tokenizer beside the model that it was trained with",
        )
    counts = _count_pieces(context, len(vocabulary.pieces))
    kept = choose_pieces(
        vocabulary,
        counts.tolist(),
        min_count=options.min_count,
        size=options.size,
        whole_alphabet=options.alphabet == "all",
    )
    keep_rows(model, kept)
    assert context.files is not None
    write_smaller(context.files, tokenizer, kept)
    again = context.read_again()
    if options.train is not None:
        again.train(model, options.train)
    return {
        "pieces": len(kept),
        "of": rows,
        "kept_share_of_tokens": float(counts[kept].sum() / max(counts.sum(), 1)),
        "mean_tokens": {"before": _mean_tokens(context), "after": _mean_tokens(again)},
    }


def _count_pieces(context: Context, size: int) -> NDArray[np.int64]:
    counts = np.zeros(size, np.int64)
    sets = [samples for samples in (context.train_samples, context.unlabelled) if samples is not None]
    if not sets:
        raise DataError("a vocabulary is chosen by what data uses", cure="pass --data FILE or --unlabelled FILE")
    for samples in sets:
        counts += np.bincount(_join_ids(samples), minlength=size)[:size]
    return counts


def _mean_tokens(context: Context) -> float:
    """Return the mean length of a sample in tokens, to see how much longer texts become."""
    samples = context.require_samples()
    return round(len(_join_ids(samples)) / len(samples), 2)


def _join_ids(samples: Samples) -> NDArray[np.int64]:
    return np.concatenate([np.asarray(row["input_ids"], np.int64) for row in samples.rows])
