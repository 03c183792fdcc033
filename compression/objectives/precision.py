"""The arithmetic of a training's products: float32, or bfloat16 with float32 parameters, losses and updates.

In: the word for it. Out: a context to compute in. Imports torch.

Micikevicius et al., "Mixed Precision Training", ICLR 2018 (arXiv:1710.03740); bfloat16 has the range of float32, so the
loss is not scaled.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def compute_in(precision: Precision) -> AbstractContextManager[None]:
    """Return a context in which products are computed in ``precision``.

    Weights are not kept cast: what a teacher casts without gradients must not serve its student.
    """
    enabled = precision == "bf16"
    context: AbstractContextManager[None] = torch.autocast("cpu", torch.bfloat16, enabled=enabled, cache_enabled=False)
    return context
