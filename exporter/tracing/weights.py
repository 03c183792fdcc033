"""Are the weights usable? NaN and infinity are fatal, an all-zero weight is a finding.

In: names and arrays, one at a time. Out: findings. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import UnsupportedModel


def check_weights(weights: Iterable[tuple[str, NDArray[np.generic]]]) -> tuple[str, ...]:
    """Look at every weight once.

    Args:
        weights: Names and arrays of any dtype and shape; only floating-point ones are judged.

    Returns:
        A sentence for each dead tensor: a weight (not a bias) whose every entry is zero.

    Raises:
        UnsupportedModel: a weight holds NaN or infinity; names the tensor, how many, and the first position.
    """
    findings = []
    for name, array in weights:
        if array.size == 0 or not np.issubdtype(array.dtype, np.floating):
            continue
        # The sum is finite unless some entry is not, and costs no temporary of the tensor's size; only its
        # overflow needs the second look.
        with np.errstate(over="ignore", invalid="ignore"):
            total = array.sum(dtype=np.float64)
        if not np.isfinite(total):
            _refuse_non_finite(name, array)
        if total == 0 and not name.endswith("bias") and not array.any():
            findings.append(f"the tensor '{name}' {list(array.shape)} is dead: every entry is zero")
    return tuple(findings)


def _refuse_non_finite(name: str, array: NDArray[np.generic]) -> None:
    broken = ~np.isfinite(array)
    if not broken.any():
        return
    first = tuple(int(i) for i in np.argwhere(broken)[0])
    raise UnsupportedModel(
        f"the weight holds NaN or infinity: {int(broken.sum())} of {array.size} entries, the first at {first}",
        where=f"tensor {name}",
        cure="the checkpoint is damaged or its training diverged: take an earlier one",
    )
