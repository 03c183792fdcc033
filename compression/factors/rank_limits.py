"""Up to which rank two factors are faster than the linear they stand for.

In: the sizes of a linear and a way to time it. Out: a rank. Must not import torch.

By arithmetic the factors win below inputs * outputs / (inputs + outputs). Measured they win later still: two products
write and read a thin matrix in between, and thin products use a CPU badly.
"""

from __future__ import annotations

from collections.abc import Callable

#: Times a linear against its factors: (inputs, outputs, rank) to dense time / time of the factors, above 1 is faster.
Gain = Callable[[int, int, int], float]

# Ranks are tried in steps that vector kernels like.
RANK_STEP = 8


def limit_by_arithmetic(inputs: int, outputs: int) -> int:
    """Return the largest rank at which two factors multiply less than the whole; 0 where none does."""
    return (inputs * outputs - 1) // (inputs + outputs)


class RankLimits:
    """Finds the limit of each size once; without ``gain``, where nothing can be timed, by arithmetic."""

    def __init__(self, gain: Gain | None) -> None:
        self._gain = gain
        self._found: dict[str, int] = {}

    @property
    def measured(self) -> bool:
        """Whether the limits were timed."""
        return self._gain is not None

    def find(self, inputs: int, outputs: int) -> int:
        """Return the largest rank at which the factors are faster, in steps of RANK_STEP where timed; 0 for none."""
        size = f"{inputs}x{outputs}"
        if size not in self._found:
            limit = limit_by_arithmetic(inputs, outputs)
            self._found[size] = limit if self._gain is None else _search(self._gain, inputs, outputs, limit)
        return self._found[size]

    def list_found(self) -> dict[str, int]:
        """Return the limits looked up so far, by ``inputs x outputs``."""
        return dict(self._found)


def _search(gain: Gain, inputs: int, outputs: int, limit: int) -> int:
    """Halve the ranks up to ``limit``: more rank is more work."""
    fast, slow = 0, limit // RANK_STEP + 1
    while slow - fast > 1:
        middle = (fast + slow) // 2
        if gain(inputs, outputs, middle * RANK_STEP) > 1:
            fast = middle
        else:
            slow = middle
    return fast * RANK_STEP
