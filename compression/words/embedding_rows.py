"""Some rows of a model's word embeddings stay, and get new ids; a head over the vocabulary follows.

In: a transformers model and the old id of each new one. Out: the same model with fewer rows. Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from compression.factors.low_rank import LowRankEmbedding
from compression.words.tokenizer_files import renumber
from runtimes.errors import UnsupportedModel, UsageError

_CURE = "put prune-vocabulary before the step that changed them"


def list_special_ids(model: nn.Module) -> set[int]:
    """Return the ids that the model's configuration names: of padding, of the start, and the like."""
    config: Any = model.config
    named = [value for key, value in config.to_dict().items() if key.endswith("_token_id")]
    ids = [one for value in named for one in (value if isinstance(value, list) else [value])]
    return {one for one in ids if isinstance(one, int) and 0 <= one < config.vocab_size}


def keep_rows(model: nn.Module, kept: Sequence[int]) -> None:
    """Keep the rows ``kept`` of the word embeddings and of a head over the vocabulary; row i is then that of kept[i].

    Raises:
        UnsupportedModel: the model has no word embeddings, or counts its positions from an id that would move.
        UsageError: the embeddings, or the head, are of a kind that an earlier step made.
    """
    places = {old: new for new, old in enumerate(kept)}
    config: Any = model.config
    _check_padding(model, config, places)
    encoder: Any = model
    embedding, head = encoder.get_input_embeddings(), encoder.get_output_embeddings()
    rows = torch.tensor(kept)
    made = _keep_embedding(embedding, rows, places)
    tied = head is not None and getattr(embedding, "weight", None) is head.weight
    encoder.set_input_embeddings(made)
    if head is not None:
        smaller = _keep_outputs(head, rows)
        if tied:
            smaller.weight = made.weight
        encoder.set_output_embeddings(smaller)
    config.vocab_size = len(kept)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and value is not None:
            setattr(config, name, renumber(value, places))


def _keep_embedding(embedding: Any, rows: torch.Tensor, places: Mapping[int, int]) -> Any:  # noqa: ANN401 - of two kinds
    if isinstance(embedding, LowRankEmbedding):
        made = LowRankEmbedding(
            len(rows), embedding.embedding_dim, embedding.rank, places.get(embedding.padding_idx or 0)
        )
        made.codes, made.up = _keep_embedding(embedding.codes, rows, places), embedding.up
        return made
    if type(embedding) is not nn.Embedding:
        raise UsageError(
            f"the word embeddings are a {type(embedding).__name__} by now", where="prune-vocabulary", cure=_CURE
        )
    padding = None if embedding.padding_idx is None else places.get(embedding.padding_idx)
    smaller = nn.Embedding(len(rows), embedding.embedding_dim, padding_idx=padding)
    with torch.no_grad():
        smaller.weight.copy_(embedding.weight[rows])
    return smaller


def _keep_outputs(head: nn.Module, rows: torch.Tensor) -> nn.Linear:
    if type(head) is not nn.Linear:
        raise UsageError(f"the head is a {type(head).__name__} by now", where="prune-vocabulary", cure=_CURE)
    made = nn.Linear(head.in_features, len(rows), bias=head.bias is not None)
    with torch.no_grad():
        made.weight.copy_(head.weight[rows])
        if head.bias is not None:
            made.bias.copy_(head.bias[rows])
    return made


def _check_padding(model: nn.Module, config: Any, places: Mapping[int, int]) -> None:  # noqa: ANN401 - transformers' is untyped
    """Refuse to move the padding where positions are counted from it, as RoBERTa's are."""
    padding = config.pad_token_id if config.pad_token_id is not None else -1
    counted = any(
        name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None
        for name, module in model.named_modules()
    )
    if counted and places.get(padding) != padding:
        raise UnsupportedModel(
            f"positions are counted from the padding's id, which would move from {padding} to {places.get(padding)}",
            where=type(model).__name__,
            cure="leave out prune-vocabulary",
        )
