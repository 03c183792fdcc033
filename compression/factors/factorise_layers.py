"""The layers of a model that may become two factors: which, decomposed how, and whether it pays.

In: a model, names of its linears and embeddings, and samples. Out: :class:`Layers`, which makes and places factors.
Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from compression.factors.low_rank import (
    Decomposition,
    LowRankEmbedding,
    LowRankLinear,
    decompose,
    decompose_rows,
    make_low_rank,
    make_low_rank_embedding,
)
from compression.factors.rank_limits import RankLimits, limit_by_arithmetic
from compression.models.layers import match_names, select_linears
from compression.models.moments import collect_moments
from compression.samples import Samples, read_batches
from runtimes.errors import UsageError

Whole = nn.Linear | nn.Embedding
_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Layers by name, their decompositions, and the ranks up to which factors are faster."""

    modules: Mapping[str, Whole]
    parts: Mapping[str, Decomposition]
    limits: RankLimits

    def is_worth_it(self, name: str, rank: int) -> bool:
        """Whether the factors of a linear are faster than it is, and those of an embedding smaller."""
        module = self.modules[name]
        if isinstance(module, nn.Embedding):
            return rank <= limit_by_arithmetic(module.num_embeddings, module.embedding_dim)
        return rank <= self.limits.find(module.in_features, module.out_features)

    def select_worth(self, ranks: Mapping[str, int]) -> dict[str, int]:
        """Return the part of ``ranks`` whose factors pay."""
        return {name: rank for name, rank in ranks.items() if self.is_worth_it(name, rank)}

    def place(self, model: nn.Module, ranks: Mapping[str, int]) -> None:
        """Put factors in the place of the layers named."""
        for name, rank in ranks.items():
            model.set_submodule(name, self._make(name, rank), strict=True)

    @contextmanager
    def placed(self, model: nn.Module, ranks: Mapping[str, int]) -> Iterator[None]:
        """Have factors in the place of the layers named, for a while."""
        try:
            self.place(model, ranks)
            yield
        finally:
            for name in ranks:
                model.set_submodule(name, self.modules[name], strict=True)

    def _make(self, name: str, rank: int) -> nn.Module:
        module = self.modules[name]
        if isinstance(module, nn.Embedding):
            return make_low_rank_embedding(module, self.parts[name], rank)
        return make_low_rank(module, self.parts[name], rank)


def select_layers(model: nn.Module, patterns: Sequence[str]) -> dict[str, Whole]:
    """Return the linears and embeddings whose names match; with no patterns the linears of the encoder layers.

    Factors that are there already are left alone.

    Raises:
        UsageError: a pattern matches nothing (the nearest names are given), or a weight belongs to two layers.
        UnsupportedModel: no patterns, and the model has no encoder layers.
    """
    made = tuple(f"{name}." for name, it in model.named_modules() if isinstance(it, LowRankLinear | LowRankEmbedding))
    known: dict[str, Whole] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Whole) and not name.startswith(made)
    }
    names = match_names(known, patterns, "linear or embedding") if patterns else list(select_linears(model))
    chosen = {name: known[name] for name in names if name in known}
    _refuse_shared(model, chosen)
    return chosen


def decompose_layers(
    model: nn.Module, modules: Mapping[str, Whole], samples: Samples | None
) -> dict[str, Decomposition]:
    """Decompose each layer: for the outputs that ``samples`` give it, or by its weight alone where they are None."""
    linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    moments = collect_moments(model, linears, read_batches(samples, _BATCH_SIZE)) if samples and linears else {}
    return {
        name: decompose(module, moments.get(name))
        if isinstance(module, nn.Linear)
        else decompose_rows(module.weight.detach(), _count_rows(module, samples))
        for name, module in modules.items()
    }


def _count_rows(embedding: nn.Embedding, samples: Samples | None) -> torch.Tensor:
    if samples is None:
        return torch.ones(embedding.num_embeddings)
    ids = np.concatenate([np.asarray(row["input_ids"], np.int64) for row in samples.rows])
    return torch.from_numpy(np.bincount(ids, minlength=embedding.num_embeddings))


def _refuse_shared(model: nn.Module, chosen: Mapping[str, Whole]) -> None:
    users: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            users.setdefault(id(parameter), []).append(name)
    for name, module in chosen.items():
        others = [user for user in users[id(module.weight)] if user != name]
        if others:
            raise UsageError(
                f"the weight of {name} is also that of {others[0]}",
                where="layers",
                cure="leave it out; a table of words that is also the head gets smaller by prune-vocabulary",
            )
