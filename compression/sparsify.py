"""Magnitude pruning: the smallest weights of each linear become exact zeros.

In: a model and a share. Out: the same model, edited. Imports torch.

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015 (arXiv:1506.02626).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def sparsify(model: nn.Module, names: Iterable[str], share: float) -> None:
    """Zero the ``share`` of smallest magnitude in each named linear's weight; exactly ``round(share * size)`` of them.

    Raises:
        ValueError: ``share`` is not in [0, 1), or a name is not a linear.
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share} is not in [0, 1)")
    for name in names:
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"'{name}' is a {type(linear).__name__}, not a Linear")
        with torch.no_grad():
            flat = linear.weight.view(-1)
            # By rank and not by threshold: equal magnitudes would make the count depend on the ties.
            flat[flat.abs().argsort(stable=True)[: round(share * flat.numel())]] = 0.0
