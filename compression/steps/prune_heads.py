"""``do = "prune-heads"``: attention heads leave, as many or different ones in each layer."""

from __future__ import annotations

from torch import nn

from compression.context import Context
from compression.prune_by_importance import UnitOptions as Options
from compression.prune_by_importance import prune_by_importance
from compression.recipe import Facts
from compression.units import list_head_groups

__all__ = ["Options", "apply"]


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Remove the heads that matter least."""
    return prune_by_importance(model, list_head_groups(model), options, context)
