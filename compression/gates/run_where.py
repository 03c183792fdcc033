"""Computing something only if a row of the batch wants it: a branch in Python, an ONNX ``If`` in a traced graph.

In: tensors and a function of them. Out: the function's result, or the fallback's. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Compute = Callable[..., torch.Tensor]


def run_where(wanted: torch.Tensor, run: Compute, skip: Compute, operands: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return ``run(*operands)`` if any row is wanted, else ``skip(*operands)``; only one of them is computed.

    Args:
        wanted: bool [rows].
        run: Must not change its operands.
        skip: Of the same shape and dtype as ``run``, and a tensor of its own: no view of an operand.
        operands: All tensors that depend on the inputs of the model; parameters need not be among them.
    """
    if torch.compiler.is_exporting():
        traced: torch.Tensor = torch.cond(wanted.any(), run, skip, operands)
        return traced
    return run(*operands) if bool(wanted.any()) else skip(*operands)
