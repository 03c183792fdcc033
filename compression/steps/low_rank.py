"""``do = "low-rank"``: linears and embeddings become two thin factors, where those are faster or smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from compression.context import Context
from compression.factors.choose_ranks import choose_by_energy, choose_by_loss
from compression.factors.factorise_layers import Layers, Whole, decompose_layers, select_layers
from compression.factors.rank_limits import RankLimits
from compression.objectives.measure import measure
from compression.options import OptionError
from compression.recipe import Facts
from compression.samples import draw_samples
from compression.training.loop import Training

_PURPOSE = "low-rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which layers, and their ranks: give one of ``rank``, ``energy`` and ``max_drop``.

    Attributes:
        layers: Names of linears and embeddings; by default every linear of the encoder layers.
        method: ``svd`` looks at weights alone, ``activation-svd`` at what they are given; no labels.
        rank: The same for all.
        energy: The share of the squares to keep, of weights or of outputs, in (0, 1].
        max_drop: By how much the loss, measured on held-out samples, may rise; the smallest ranks that keep to it.
        samples: How many samples are looked at; the pieces of embeddings are counted in as many.
        train: How to recover; None leaves that to a later step.
    """

    layers: tuple[str, ...] = ()
    method: Literal["svd", "activation-svd"] = "activation-svd"
    rank: int | None = None
    energy: float | None = None
    max_drop: float | None = None
    samples: int = 512
    train: Training | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("rank", "energy", "max_drop") if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionError(
                "rank", f"{len(given)} of rank, energy and max_drop are given", "give exactly one of them"
            )
        if self.rank is not None and self.rank < 1:
            raise OptionError("rank", f"{self.rank} is below 1", "give a whole number of at least 1")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise OptionError("energy", f"{self.energy} is not in (0, 1]", "give a share, such as 0.9")
        if self.max_drop is not None and self.max_drop < 0:
            raise OptionError(
                "max_drop", f"{self.max_drop} is below 0", "give how much the loss may rise, such as 0.01"
            )
        if self.samples < 1:
            raise OptionError("samples", f"{self.samples} is below 1", "give a whole number of at least 1")


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Replace the layers whose factors pay, and train where asked; the others stay, and are named in the facts."""
    layers = _read_layers(model, options, context)
    found = {}
    if options.rank is not None:
        ranks = dict.fromkeys(layers.modules, options.rank)
    elif options.energy is not None:
        ranks = choose_by_energy(layers.parts, options.energy)
    else:
        ranks, found["energy"] = _choose_by_loss(model, layers, options, context)
    chosen = layers.select_worth(ranks)
    if not chosen and options.max_drop is None:
        raise _refuse(ranks, layers.limits)
    layers.place(model, chosen)
    if options.train is not None:
        context.train(model, options.train)
    timed = {"faster_up_to": layers.limits.list_found(), "measured": layers.limits.measured}
    return {**found, "ranks": chosen, "whole": sorted(ranks.keys() - chosen.keys()), **timed}


def _read_layers(model: nn.Module, options: Options, context: Context) -> Layers:
    modules = select_layers(model, options.layers)
    if options.rank is not None:
        _check_rank(options.rank, modules)
    samples = None
    if options.method == "activation-svd":
        samples = draw_samples(context.require_unlabelled(), options.samples, context.make_generator(_PURPOSE))
    limits = RankLimits(None if context.factor_gain is None else partial(_measure_gain, context))
    return Layers(modules=modules, parts=decompose_layers(model, modules, samples), limits=limits)


def _measure_gain(context: Context, inputs: int, outputs: int, rank: int) -> float:
    """Time it once: a step that is done again after a kill must come to the same ranks."""
    measure_gain = context.factor_gain
    assert measure_gain is not None
    return context.remember(f"gain_{inputs}x{outputs}_{rank}", lambda: measure_gain(inputs, outputs, rank))


def _check_rank(rank: int, modules: Mapping[str, Whole]) -> None:
    for name, module in modules.items():
        full = min(module.weight.shape)
        if rank > full:
            cure = f"give a rank of at most {full}, or leave that layer out"
            raise OptionError("rank", f"{rank} is above the full rank {full} of {name}", cure)


def _choose_by_loss(
    model: nn.Module, layers: Layers, options: Options, context: Context
) -> tuple[dict[str, int], float]:
    assert options.max_drop is not None
    samples = context.held_out or draw_samples(
        context.require_samples(), options.samples, context.make_generator(_PURPOSE)
    )

    def measure_ranks(ranks: Mapping[str, int]) -> float:
        with layers.placed(model, layers.select_worth(ranks)):
            return measure(model, samples, context.tokens)["loss"]

    most = measure(model, samples, context.tokens)["loss"] + options.max_drop
    return choose_by_loss(layers.parts, most, measure_ranks)


def _refuse(ranks: Mapping[str, int], limits: RankLimits) -> OptionError:
    known = ", ".join(f"{size}: {limit}" for size, limit in limits.list_found().items()) or "none is a linear"
    lowest, highest = min(ranks.values()), max(ranks.values())
    return OptionError(
        "rank",
        f"no layer is faster or smaller as two factors, at ranks of {lowest} to {highest}",
        f"ask for less; factors are faster up to these ranks: {known}",
    )
