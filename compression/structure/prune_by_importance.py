"""Score the units of a model, choose, and remove: what the steps for heads and for neurons share.

In: a model, its units, options and the context of a step. Out: the smaller model, and what was done. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from compression.context import Context
from compression.models.layer_walk import make_collector
from compression.models.layers import match_names
from compression.models.moments import collect_moments
from compression.models.units import UnitGroup
from compression.objectives.objective import make_task_objective
from compression.options import OptionError
from compression.samples import Samples, draw_batches
from compression.structure.choose_units import Scope, choose_units
from compression.structure.importance import (
    WITHOUT_DATA,
    Importance,
    score_by_activation,
    score_by_gradient,
    score_by_magnitude,
)
from compression.structure.prune_structure import prune_units
from compression.training.loop import Training, derive_seed
from runtimes.errors import DataError

_PURPOSE = "importance"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOptions:
    """How units leave.

    Attributes:
        sparsity: The share that leaves, in [0, 1).
        layers: Names of the encoder layers that lose units, such as ``encoder.layer.[0-3]``; by default all.
        importance: How units are scored: ``taylor`` and ``fisher`` by the task's loss, ``activation`` by unlabelled
            samples, ``magnitude`` by the weights alone.
        scope: ``layer`` takes the share from every layer, ``global`` the least important of all: widths then differ.
        multiple_of: The units left in a layer are a multiple of this.
        samples: How many samples are looked at.
        reconstruct: Whether the linears that read the units are fitted to stand in for those that leave: that needs
            data, and no labels.
        train: How to recover; None leaves that to a later step.
    """

    sparsity: float
    layers: tuple[str, ...] = ()
    importance: Importance = "taylor"
    scope: Scope = "layer"
    multiple_of: int = 1
    samples: int = 512
    reconstruct: bool = True
    train: Training | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise OptionError("sparsity", f"{self.sparsity} is not in [0, 1)", "give a share, such as 0.5")
        for name in ("multiple_of", "samples"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is below 1", "give a whole number of at least 1")


def prune_by_importance(
    model: nn.Module, groups: Sequence[UnitGroup], options: UnitOptions, context: Context
) -> dict[str, Any]:
    """Remove the least important units, train where asked, and return what is left of each layer.

    Raises:
        DataError: the importance or the fit needs data, or labels, that are not there.
        UsageError: the units of a layer are not divisible by ``multiple_of``, or no layer has a name that is asked for.
    """
    if options.layers:
        named = match_names([group.name for group in groups], options.layers, "layer")
        groups = [group for group in groups if group.name in named]
    scores = _score(model, groups, options, context)
    kept = choose_units(scores, options.sparsity, scope=options.scope, multiple_of=options.multiple_of)
    smaller = [group for group in groups if len(kept[group.target]) < group.count]
    collect = None
    if options.reconstruct and smaller:
        batches = draw_batches(_require(context.require_unlabelled), options.samples, context.make_generator(_PURPOSE))
        collect = make_collector(model, batches)
    for group in smaller:
        # One layer after the other: each is fitted to what it is given once those before it are smaller.
        moments = None if collect is None else collect([group.target])[group.target]
        prune_units(model, group, kept[group.target], moments)
    if options.train is not None:
        context.train(model, options.train)
    return {"left": {group.name: len(kept[group.target]) for group in groups}, "of": _count(groups)}


def _score(
    model: nn.Module, groups: Sequence[UnitGroup], options: UnitOptions, context: Context
) -> dict[str, torch.Tensor]:
    if options.importance == "magnitude":
        return score_by_magnitude(model, groups)
    if options.importance == "activation":
        batches = draw_batches(_require(context.require_unlabelled), options.samples, context.make_generator(_PURPOSE))
        return score_by_activation(model, groups, collect_moments(model, [group.target for group in groups], batches))
    return _score_by_loss(model, groups, options, context, power=1 if options.importance == "taylor" else 2)


def _score_by_loss(
    model: nn.Module, groups: Sequence[UnitGroup], options: UnitOptions, context: Context, *, power: Literal[1, 2]
) -> dict[str, torch.Tensor]:
    samples = _require(context.require_samples)
    loss = make_task_objective(model, samples, context.tokens).loss
    batches = draw_batches(samples, options.samples, context.make_generator(_PURPOSE))
    with torch.random.fork_rng(devices=[]):
        # Which tokens are masked is drawn from torch's own generator.
        torch.manual_seed(derive_seed(context.seed, context.step, _PURPOSE))
        return score_by_gradient(model, groups, batches, lambda _, batch: loss(batch), power=power)


def _require(ask: Callable[[], Samples]) -> Samples:
    """Return what ``ask`` gives; an error says how to do without."""
    try:
        return ask()
    except DataError as error:
        raise DataError(error.what, where=error.where, cure=f"{error.cure}, {WITHOUT_DATA}") from error


def _count(groups: Sequence[UnitGroup]) -> dict[str, int]:
    return {group.name: group.count for group in groups}
