"""``do = "binarise"``: weights become -1 or 1 times a scale for each output, in 1 bit, and learn through that."""

from __future__ import annotations

from torch import nn

from compression.context import Context
from compression.recipe import Facts
from compression.rounding.train_levels import LevelOptions as Options
from compression.rounding.train_levels import reduce_to_levels

__all__ = ["Options", "apply"]


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Train the weights behind their levels, then keep the levels alone."""
    return reduce_to_levels(model, "binary", options, context)
