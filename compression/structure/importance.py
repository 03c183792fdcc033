"""How much each unit of a layer, a head or a neuron, matters.

In: a model, its groups of units, and data. Out: a score for each unit, the larger the more it matters. Imports torch.

Every method looks at the place where a unit enters the linear that reads it:

* ``magnitude``: the norm of the weights that make and read it; needs no data.
* ``activation``: the mean square of what it adds to the output of that linear; needs no labels. For a neuron it is the
  square of the weight times activation of Sun et al., "A Simple and Effective Pruning Approach for Large Language
  Models" (arXiv:2306.11695), summed over the outputs.
* ``taylor``: the mean of |dL/dg|, where a gate g = 1 multiplies the unit: Michel et al., "Are Sixteen Heads Really
  Better than One?", NeurIPS 2019 (arXiv:1905.10650); Molchanov et al. (arXiv:1611.06440) for neurons.
* ``fisher``: the mean of (dL/dg)^2: Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS
  2022 (arXiv:2204.09656).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from compression.models.moments import Moments
from compression.models.units import UnitGroup, UnitSource
from compression.samples import Batch
from runtimes.errors import DataError

Importance = Literal["magnitude", "activation", "taylor", "fisher"]
#: What a cure may add: the fit, which is on by default, looks at data too.
WITHOUT_DATA = 'or set importance = "magnitude" and reconstruct = false'
#: The loss of a batch, a mean over its samples.
Loss = Callable[[nn.Module, Batch], torch.Tensor]


def score_by_magnitude(model: nn.Module, groups: Sequence[UnitGroup]) -> dict[str, torch.Tensor]:
    """Return by target the norm of each unit's weights, as a share of its layer's."""
    scores = {}
    for group in groups:
        made = sum(_square_units(model, source, group.count) for source in group.sources)
        read = _get_weight(model, group.target).square().sum(dim=0).view(-1, group.size).sum(dim=1)
        scores[group.target] = _share(made + read).sqrt()
    return scores


def score_by_activation(
    model: nn.Module, groups: Sequence[UnitGroup], moments: Mapping[str, Moments]
) -> dict[str, torch.Tensor]:
    """Return by target the mean square of what each unit adds to the outputs, as a share of its layer's.

    Args:
        model: Not run.
        groups: The units.
        moments: Of the inputs of each target.
    """
    scores = {}
    for group in groups:
        weight = _get_weight(model, group.target)
        weight = weight.view(len(weight), group.count, group.size)
        second = moments[group.target].second.view(group.count, group.size, group.count, group.size)
        # E|W x|^2 = sum of (W'W * E[x x']) over the unit's own columns.
        own = second.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        scores[group.target] = _share((torch.einsum("oui,ouj->uij", weight, weight) * own).sum(dim=(1, 2)))
    return scores


def score_by_gradient(
    model: nn.Module, groups: Sequence[UnitGroup], batches: Iterable[Batch], loss: Loss, *, power: Literal[1, 2]
) -> dict[str, torch.Tensor]:
    """Return by target the mean over samples of |dL/dg|^power for each unit: 1 is Taylor, 2 is Fisher.

    A gate for each sample and unit makes one backward pass give the gradients of all samples apart.

    Raises:
        DataError: there are no batches.
    """
    sums = {group.target: torch.zeros(group.count, dtype=torch.float64) for group in groups}
    samples = 0
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            size = len(batch)
            gates: dict[str, list[torch.Tensor]] = {group.target: [] for group in groups}
            hooks = [
                model.get_submodule(group.target).register_forward_pre_hook(
                    partial(_gate, group=group, samples=size, made=gates[group.target])
                )
                for group in groups
            ]
            try:
                value = loss(model, batch)
            finally:
                for hook in hooks:
                    hook.remove()
            _add_gradients(sums, gates, value * size, power)
            samples += size
    finally:
        model.train(was_training)
    if not samples:
        raise DataError("there is no data to measure importance on", cure=f"pass --data FILE, {WITHOUT_DATA}")
    return {name: total / samples for name, total in sums.items()}


def _gate(
    _: nn.Module, args: tuple[torch.Tensor, ...], *, group: UnitGroup, samples: int, made: list[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    gates = torch.ones(samples, group.count, requires_grad=True)
    made.append(gates)
    # OPT's feed-forward reads the tokens of all samples in one row after the other.
    widened = gates.repeat_interleave(group.size, dim=1).repeat_interleave(len(args[0]) // samples, dim=0)
    between = (1,) * (args[0].dim() - 2)
    return (args[0] * widened.view(len(args[0]), *between, -1), *args[1:])


def _add_gradients(
    sums: Mapping[str, torch.Tensor], gates: Mapping[str, list[torch.Tensor]], loss: torch.Tensor, power: int
) -> None:
    # A layer whose weights are shared is passed, and gated, several times.
    flat = [one for made in gates.values() for one in made]
    slopes = iter(torch.autograd.grad(loss, flat))
    for name, made in gates.items():
        slope = torch.stack([next(slopes) for _ in made]).sum(dim=0).double()
        sums[name].add_(slope.abs().pow(power).sum(dim=0))


def _square_units(model: nn.Module, source: UnitSource, count: int) -> torch.Tensor:
    rows = _get_weight(model, source.path).square().sum(dim=1)
    return rows.view(source.parts, count, source.size).sum(dim=2).sum(dim=0)


def _get_weight(model: nn.Module, name: str) -> torch.Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().double()


def _share(values: torch.Tensor) -> torch.Tensor:
    return values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
