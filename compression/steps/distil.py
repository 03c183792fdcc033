"""``do = "distil"``: learn from the teacher, from labelled samples and from unlabelled ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from compression.context import Context
from compression.distillation.objective import DistilOptions
from compression.distillation.teaching import join_samples
from compression.recipe import Facts
from compression.training.loop import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to train, and on what.

    Attributes:
        train: Without a table ``distil`` of its own, soft labels and hard ones weigh the same.
        unlabelled: Whether the samples of ``--unlabelled`` are learned too, from the teacher's answers alone.
    """

    train: Training = field(default_factory=Training)
    unlabelled: bool = False


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Train the whole model."""
    training = options.train if options.train.distil else replace(options.train, distil=DistilOptions())
    samples = context.require_samples()
    if options.unlabelled:
        samples = join_samples(context.train_samples, context.unlabelled)
    context.train(model, training, samples=samples)
    facts: Facts = {"samples": len(samples)}
    return {**facts, "held_out": context.evaluate(model)} if context.held_out is not None else facts
