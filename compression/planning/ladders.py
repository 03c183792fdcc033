"""What a plan may choose from: each method as steps of a recipe, at growing levels.

In: a model, what its layers could bear, and the kind of zeros that the target makes use of. Out: ladders, in the order
in which the steps stand in a recipe, and the steps at its end. Imports torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from torch import nn

from compression.context import Context
from compression.distillation.objective import DistilOptions
from compression.models.layers import find_stack, select_linears
from compression.models.units import UnitGroup, list_head_groups, list_neuron_groups
from compression.options import OptionError
from compression.planning.probes import RANK_SHARES, Sensitivity, name_rank
from compression.planning.proposal import Ladder
from compression.recipe import Step, import_step
from compression.steps import (
    distil,
    drop_layers,
    low_rank,
    prune,
    prune_heads,
    prune_neurons,
    prune_vocabulary,
    quantise,
)
from compression.training.loop import Training
from runtimes.errors import UnsupportedModel

#: Single zeros, which the sparse kernels of the CPU skip, or two of four, which a GPU's tensor cores do.
Zeros = Literal["1x1", "2:4"]

_SPARSITIES = (0.5, 0.7, 0.8, 0.9)
_UNIT_SPARSITIES = (0.25, 0.5)
# Neurons left in a layer, where its neurons are so many: whole vectors of every kernel, and whole groups of 2:4.
_MULTIPLE = 16
# Where a rank alone costs a layer this share of the budget at most, all such layers together may keep to it.
_BEARABLE_SHARE = 0.5


def list_ladders(
    model: nn.Module, found: Sequence[Sensitivity], context: Context, *, zeros: Zeros, budget: float
) -> list[Ladder]:
    """Return the ladders that ``model`` has steps for; ``budget`` is the drop that all together may cost."""
    return [
        *_list_layers(model),
        *_list_units("prune-heads", model, list_head_groups, prune_heads.Options),
        *_list_units("prune-neurons", model, list_neuron_groups, prune_neurons.Options),
        *_list_ranks(model, found, context, budget),
        _list_zeros(zeros),
    ]


def make_shrinking() -> Step:
    """Return the first step: pieces leave that the data never uses."""
    return Step(do="prune-vocabulary", options=prune_vocabulary.Options())


def make_recovery(*, labelled: bool) -> Step:
    """Return the training that follows: from the model as it was, and from labels where there are some."""
    learned = DistilOptions() if labelled else DistilOptions(hard_weight=0.0, soft_weight=1.0)
    return Step(do="distil", options=distil.Options(train=Training(distil=learned)))


def make_rounding(precision: Literal["int8", "weights-8"]) -> Step:
    """Return the last step."""
    return Step(do="quantise", options=quantise.Options(precision=precision))


def _list_layers(model: nn.Module) -> Iterator[Ladder]:
    count = len(list(model.get_submodule(find_stack(model)).children()))
    levels = tuple(
        Step(do="drop-layers", options=drop_layers.Options(keep=keep))
        for keep in range(count - 1, (count - 1) // 2, -1)
        if keep
    )
    if levels:
        yield Ladder(method="drop-layers", levels=levels)


def _list_units(
    do: str,
    model: nn.Module,
    list_groups: Callable[[nn.Module], list[UnitGroup]],
    options: type[prune_heads.Options],
) -> Iterator[Ladder]:
    try:
        groups = list_groups(model)
    except UnsupportedModel:
        return  # another architecture: its units cannot leave
    multiple = _MULTIPLE if all(group.count % _MULTIPLE == 0 for group in groups) else 1
    made = [
        options(sparsity=share, importance="activation", scope="global", multiple_of=multiple)
        for share in _UNIT_SPARSITIES
    ]
    yield Ladder(method=do, levels=tuple(Step(do=do, options=one) for one in made))


def _list_ranks(model: nn.Module, found: Sequence[Sensitivity], context: Context, budget: float) -> Iterator[Ladder]:
    """Yield one level: low rank where layers bear it, if factors are faster or smaller there at all."""
    share = RANK_SHARES[0]
    able = [
        one
        for one in found
        if one.method == "low-rank" and one.setting == name_rank(share) and one.change.drop <= _BEARABLE_SHARE * budget
    ]
    names = tuple(name for one in able for name in one.names)
    if not names:
        return
    rank = max(1, int(share * min(min(linear.weight.shape) for linear in select_linears(model, names).values())))
    step = Step(do="low-rank", options=low_rank.Options(layers=names, rank=rank))
    try:
        import_step(step.do).apply(copy.deepcopy(model), step.options, context)
    except OptionError:
        return  # never faster nor smaller, says the step, which timed it
    yield Ladder(method="low-rank", levels=(step,))


def _list_zeros(zeros: Zeros) -> Ladder:
    if zeros == "2:4":
        options = [prune.Options(method="second-order", pattern="2:4")]
    else:
        options = [prune.Options(method="second-order", sparsity=share) for share in _SPARSITIES]
    return Ladder(method="prune", levels=tuple(Step(do="prune", options=one) for one in options))
