"""``do = "gate-layers"``: each text skips the layers that it does not need."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from compression.context import Context
from compression.gates.gate_training import learn_gates, measure_runs
from compression.gates.gated_layer import GatedLayer, gate_layer
from compression.gates.row_gates import FIRST_SCORE, RowGate, measure_width
from compression.models.layers import find_stack, match_names
from compression.options import OptionError
from compression.recipe import Facts
from compression.training.loop import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which layers get a gate, and how much is to run.

    Names of modules below a gated layer have ``.layer`` behind its number: steps that name them come before this one.

    Attributes:
        layers: Names of layers, such as ``encoder.layer.3``; empty are all.
        share: Of the rows times gated layers, what is to run, in (0, 1].
        share_weight: How much the square of the distance to that counts in the loss.
        gates: How the gates learn, alone.
        train: How the model then learns to live with them; None leaves it as it was.
    """

    layers: tuple[str, ...] = ()
    share: float = 0.7
    share_weight: float = 10.0
    gates: Training = field(default_factory=lambda: Training(epochs=1, learning_rate=3e-3))
    train: Training | None = field(default_factory=Training)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise OptionError("share", f"{self.share} is not in (0, 1]", "give the share that is to run, such as 0.7")
        if self.share_weight <= 0:
            raise OptionError("share_weight", f"{self.share_weight} is not above 0", "give a number above 0")


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Put gates before layers, let them learn, then the model with them."""
    gated = _add_gates(model, options, context)
    learn_gates(model, gated, options, context)
    facts: Facts = {"runs": measure_runs(model, gated, context.held_out or context.require_samples())}
    return {**facts, "held_out": context.evaluate(model)} if context.held_out is not None else facts


def _add_gates(model: nn.Module, options: Options, context: Context) -> dict[str, GatedLayer]:
    stack = find_stack(model)
    names = [f"{stack}.{place}" for place, _ in enumerate(model.get_submodule(stack).children())]
    generator = context.make_generator("gates")
    gated = {}
    for name in match_names(names, options.layers, "layer") if options.layers else names:
        gate = RowGate(2 * measure_width(model.get_submodule(name)), bias=FIRST_SCORE).draw(generator)
        gated[name] = gate_layer(model, name, gate)
    return gated
