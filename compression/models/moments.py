"""What the inputs of some linears look like over data: mean and second moment, padding left out.

In: a model, names of its modules and batches. Out: :class:`Moments` of each, in float64. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from compression.models.forward import run_body
from compression.samples import Batch
from runtimes.errors import DataError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of the inputs of a linear, over ``count`` tokens: ``mean`` [inputs] and ``second`` [inputs, inputs] = E[x x']."""

    mean: torch.Tensor
    second: torch.Tensor
    count: int

    def to_fit(self, *, biased: bool) -> torch.Tensor:
        """Return the moment that the error of a linear's outputs is weighed by, [inputs, inputs].

        With a bias, which makes up for what is lost on average, the covariance; without one the second moment.
        """
        return self.covariance() if biased else self.second

    def covariance(self) -> torch.Tensor:
        """Return E[(x - mean)(x - mean)'], [inputs, inputs]."""
        return self.second - torch.outer(self.mean, self.mean)


class _Sums:
    """Sums over tokens; batches arrive one after the other."""

    def __init__(self) -> None:
        self.count = 0
        self.first: torch.Tensor = torch.zeros(())
        self.second: torch.Tensor = torch.zeros(())

    def add(self, rows: torch.Tensor) -> None:
        self.count += len(rows)
        self.first = self.first + rows.sum(dim=0, dtype=torch.float64)
        # A product of a batch in float32 is exact enough and five times as fast; the long sum is the one in float64.
        self.second = self.second + (rows.T @ rows).double()


def collect_moments(model: nn.Module, names: Sequence[str], batches: Iterable[Batch]) -> dict[str, Moments]:
    """Run ``batches`` through ``model`` as it stands and return the moments of the inputs of each named module.

    Args:
        model: Run in evaluation mode, without gradients.
        names: Modules with one input, [..., features].
        batches: What it is run on; where ``attention_mask`` is 0 nothing is counted.

    Raises:
        DataError: there are no batches.
        UsageError: a module was not reached.
    """
    runs = (
        Run(mask=one.inputs.get("attention_mask"), run=partial(run_body, model, one.inputs, names)) for one in batches
    )
    return collect_from(model, names, runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of a model, or of a part of it, and which of its tokens count [batch, sequence]; None are all."""

    mask: torch.Tensor | None
    run: Callable[[], object]


def collect_from(model: nn.Module, names: Sequence[str], runs: Iterable[Run]) -> dict[str, Moments]:
    """Return the moments of the inputs that each named module has in ``runs``. Raises as :func:`collect_moments`."""
    sums = {name: _Sums() for name in names}
    mask: list[torch.Tensor | None] = [None]

    def note(kept: _Sums, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        kept.add(drop_padding(args[0], mask[0]))

    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(note, kept)) for name, kept in sums.items()]
    seen = 0
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            for one in runs:
                mask[0] = one.mask
                one.run()
                seen += 1
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    if not seen:
        raise DataError("there is no data to run through the model", cure="give --data or --unlabelled")
    for name, kept in sums.items():
        if not kept.count:
            raise UsageError("the data never reaches this layer", where=name, cure="leave it out of the recipe")
    return {
        name: Moments(mean=kept.first / kept.count, second=kept.second / kept.count, count=kept.count)
        for name, kept in sums.items()
    }


def drop_padding(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the rows of ``values`` [..., features] as [rows, features], those of padding left out.

    Args:
        values: Rows of tokens [batch, sequence, features], or of anything else, which is kept whole.
        mask: [batch, sequence], 0 for padding.
    """
    if mask is not None and values.shape[:-1] == mask.shape:
        return values[mask.bool()]
    return values.reshape(-1, values.shape[-1])
