"""What the steps ``ternarise`` and ``binarise`` share: which weights, training through the rounding, and the facts.

In: a model and options. Out: the model with modules of levels. Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from compression.context import Context
from compression.models.layers import match_names, select_linears
from compression.pruning.masks import PRUNED_FROM, measure_zeros
from compression.recipe import Facts
from compression.rounding.few_levels import learn_through
from compression.rounding.level_modules import use_levels
from compression.rounding.low_bit import Form
from compression.training.loop import Training
from runtimes.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelOptions:
    """What is brought to levels, and how it is trained.

    Attributes:
        layers: Linears and embeddings, by name or pattern; empty are the linears of the encoder layers.
        train: How weights learn behind their levels; None only rounds.
    """

    layers: tuple[str, ...] = ()
    train: Training | None = field(default_factory=Training)


def reduce_to_levels(model: nn.Module, form: Form, options: LevelOptions, context: Context) -> Facts:
    """Train through the rounding, then put modules of levels in the place of the layers.

    Raises:
        UsageError: no layer has the name, or a pruned one is to become binary, which has no zero.
    """
    chosen = _select(model, options.layers)
    if form == "binary":
        _refuse_pruned(chosen)
    facts: Facts = {"layers": list(chosen)}
    with learn_through(chosen.values(), form):
        if context.held_out is not None:
            facts["held_out_before_training"] = context.evaluate(model)
        if options.train is not None:
            context.train(model, options.train)
    use_levels(model, chosen, form)
    if context.held_out is not None:
        facts["held_out"] = context.evaluate(model)
    facts["zeros"] = measure_zeros([model.get_submodule(name).get_buffer("levels") for name in chosen])
    return facts


def _select(model: nn.Module, patterns: tuple[str, ...]) -> dict[str, nn.Module]:
    if not patterns:
        return dict(select_linears(model))
    known = {name: it for name, it in model.named_modules() if isinstance(it, nn.Linear | nn.Embedding)}
    return {name: known[name] for name in match_names(known, patterns, "linear or embedding")}


def _refuse_pruned(chosen: Mapping[str, nn.Module]) -> None:
    for name, module in chosen.items():
        zeros = measure_zeros([module.get_parameter("weight")])
        if isinstance(module, nn.Linear) and zeros >= PRUNED_FROM:
            raise UsageError(
                f"{zeros:.0%} of the weights are zero, and binary weights are -1 or 1",
                where=name,
                cure='use do = "ternarise", which keeps the zeros',
            )
