"""``do = "gate-channels"``: each input computes only the channels of convolutions, or neurons, that it needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from compression.context import Context
from compression.gates.divide_channels import add_gates, list_divisible
from compression.gates.gate_training import learn_gates, measure_runs
from compression.models.layers import match_names
from compression.options import OptionError
from compression.recipe import Facts
from compression.training.loop import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What gets gates, and how much is to run.

    What is divided are convolutions and the feed-forwards of encoder layers laid out like BERT's. Steps that name
    modules inside of them come before this one.

    Attributes:
        layers: Names of convolutions, or of ``intermediate`` in encoder layers; empty are all.
        parts: Into how many parts each is divided.
        share: Of rows times parts, what is to run, in (0, 1].
        share_weight: How much the square of the distance to that counts in the loss.
        gates: How the gates learn, alone.
        train: How the model then learns to live with them; None leaves it as it was.
    """

    layers: tuple[str, ...] = ()
    parts: int = 4
    share: float = 0.5
    share_weight: float = 10.0
    gates: Training = field(default_factory=lambda: Training(epochs=1, learning_rate=3e-3))
    train: Training | None = field(default_factory=Training)

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise OptionError("parts", f"{self.parts} leave nothing to choose", "give a whole number of at least 2")
        if not 0 < self.share <= 1:
            raise OptionError("share", f"{self.share} is not in (0, 1]", "give the share that is to run, such as 0.5")
        if self.share_weight <= 0:
            raise OptionError("share_weight", f"{self.share_weight} is not above 0", "give a number above 0")


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Divide what is named, let the gates learn, then the model with them."""
    known = list_divisible(model)
    names = match_names(known, options.layers, "convolution or feed-forward") if options.layers else known
    gated = add_gates(model, names, options.parts, context.make_generator("gates"))
    learn_gates(model, gated, options, context)
    facts: Facts = {"runs": measure_runs(model, gated, context.held_out or context.require_samples())}
    return {**facts, "held_out": context.evaluate(model)} if context.held_out is not None else facts
