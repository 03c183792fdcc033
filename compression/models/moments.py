"""What the inputs of some linears look like over data: mean and second moment, padding left out.

In: a model, names of its modules and batches. Out: :class:`Moments` of each, in float64. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from compression.models.inputs import Run, run_batches, watch_inputs
from compression.samples import Batch


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
    return collect_from(model, names, run_batches(model, batches, names))


def collect_from(model: nn.Module, names: Sequence[str], runs: Iterable[Run]) -> dict[str, Moments]:
    """Return the moments of the inputs that each named module has in ``runs``. Raises as :func:`collect_moments`."""
    sums = {name: _Sums() for name in names}
    watch_inputs(model, names, runs, lambda name, rows: sums[name].add(rows))
    return {
        name: Moments(mean=kept.first / kept.count, second=kept.second / kept.count, count=kept.count)
        for name, kept in sums.items()
    }
