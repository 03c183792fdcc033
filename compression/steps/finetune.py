"""``do = "finetune"``: learn the task, or recover it, from labels or from a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from compression.context import Context
from compression.recipe import Facts
from compression.training.loop import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to train."""

    train: Training = field(default_factory=Training)


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Train the whole model."""
    context.train(model, options.train)
    return {"held_out": context.evaluate(model)} if context.held_out is not None else {}
