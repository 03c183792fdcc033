"""What the zeros of one weight look like, and what they are good for.

In: where a weight is not zero. Out: zero fraction, pattern, what a runtime could make of it.
Must not import: anything but numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A few zeros are no pattern: rounding a dense float weight to 7 or 8 bits alone makes 2 to 4 % of them.
DENSE_BELOW = 0.05
# Square blocks that sparse kernels use, the largest first.
BLOCKS = (32, 16, 8, 4)
# Float kernels on AVX2 gain from about here (docs/benchmarks.md); below, dense is faster.
UNSTRUCTURED_PAYS_FROM = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """``zeros``: fraction in 0..1. ``pattern``: ``dense``, ``2:4``, ``rows``, ``block NxN`` or ``unstructured``."""

    zeros: float
    pattern: str
    use: str


def describe_sparsity(nonzero: NDArray[np.bool_]) -> Sparsity:
    """Describe a weight given as where it is not zero, shape (outputs, inputs).

    2:4 means at most two of every four neighbours along the inputs, which is what sparse tensor cores multiply.
    """
    zeros = 1.0 - float(nonzero.mean()) if nonzero.size else 0.0
    pattern = _find_pattern(nonzero, zeros)
    return Sparsity(zeros=zeros, pattern=pattern, use=_find_use(pattern, zeros, nonzero.shape[1]))


def _find_pattern(nonzero: NDArray[np.bool_], zeros: float) -> str:
    if zeros < DENSE_BELOW:
        return "dense"
    outputs, inputs = nonzero.shape
    if _is_mostly_explained(1.0 - float(nonzero.any(axis=1).mean()), zeros):
        return "rows"
    for side in BLOCKS:
        if outputs % side == 0 and inputs % side == 0:
            blocks = nonzero.reshape(outputs // side, side, inputs // side, side).any(axis=(1, 3))
            if _is_mostly_explained(1.0 - float(blocks.mean()), zeros):
                return f"block {side}x{side}"
    if inputs % 4 == 0 and int(nonzero.reshape(outputs, inputs // 4, 4).sum(axis=2).max()) <= 2:
        return "2:4"
    return "unstructured"


def _is_mostly_explained(part: float, zeros: float) -> bool:
    """Whether a kind of structure accounts for the zeros, but for one in a hundred."""
    return part >= 0.99 * zeros


def _find_use(pattern: str, zeros: float, inputs: int) -> str:
    if pattern == "dense":
        return "none"
    if pattern == "2:4":
        return "GPU 2:4" if inputs % 16 == 0 else "none: 2:4 needs inputs in multiples of 16"
    if pattern == "rows":
        return "drop the rows"
    if zeros >= UNSTRUCTURED_PAYS_FROM:
        return "CPU sparse kernels"
    return f"none: pays from {UNSTRUCTURED_PAYS_FROM:.0%} zeros"
