"""A rank for each layer: one for all, by the energy that is kept, or by the loss that is measured.

In: decompositions of layers and what is wanted. Out: ranks by name. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compression.factors.low_rank import Decomposition
from compression.factors.rank_limits import RANK_STEP

# Energies are tried to one part in so many: from 0.5 up a step is 0.2 %.
_ENERGY_STEPS = 256


def choose_by_energy(parts: Mapping[str, Decomposition], energy: float) -> dict[str, int]:
    """Return the smallest ranks that keep the share ``energy`` of each layer, rounded up to steps of RANK_STEP."""
    return {
        name: min(len(one.values), -(-one.find_rank(energy) // RANK_STEP) * RANK_STEP) for name, one in parts.items()
    }


def choose_by_loss(
    parts: Mapping[str, Decomposition], most: float, loss: Callable[[Mapping[str, int]], float]
) -> tuple[dict[str, int], float]:
    """Return the ranks of the least energy, one share for all layers, whose measured loss is at most ``most``.

    Args:
        parts: The layers.
        most: The largest loss allowed.
        loss: Measures the model with given ranks.

    Returns:
        The ranks, and the energy they keep; where no energy is good enough, the full ranks and 1.
    """
    good, bad = _ENERGY_STEPS, 0
    while good - bad > 1:
        middle = (good + bad) // 2
        if loss(choose_by_energy(parts, middle / _ENERGY_STEPS)) <= most:
            good = middle
        else:
            bad = middle
    energy = good / _ENERGY_STEPS
    return choose_by_energy(parts, energy), energy
