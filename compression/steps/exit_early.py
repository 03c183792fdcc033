"""``do = "exit-early"``: a text leaves the encoder behind the first layer where its answer is sure enough."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from compression.context import Context
from compression.gates.early_exit import learn_doubt, learn_exits
from compression.gates.gate_training import freeze_all_but, measure_runs
from compression.gates.gated_layer import GatedLayer, gate_layer
from compression.gates.row_gates import RowGate, let_gates_learn, measure_width, to_score
from compression.models.layers import find_stack
from compression.objectives.objective import Objective
from compression.options import OptionError
from compression.recipe import Facts
from compression.training.loop import Training
from runtimes.errors import DataError, UnsupportedModel

_CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """When a text may leave: give ``confidence`` or ``max_drop``.

    Names of modules below a layer have ``.layer`` behind its number then: steps that name them come before this one.

    Attributes:
        confidence: How near to the whole model's answer the gate must expect that of an exit to be, in (0, 1): 1 less
            the total variation of their probabilities.
        max_drop: In place of it: the lowest confidence with which the accuracy (correlation) on the held-out samples
            falls by no more than this, such as 0.005.
        first: The first exit is behind so many layers.
        gates: How the gate of the exits learns, alone.
        train: How the model learns before to answer behind every layer; None leaves it as it was.
    """

    confidence: float | None = None
    max_drop: float | None = None
    first: int = 1
    gates: Training = field(default_factory=lambda: Training(epochs=1, learning_rate=3e-3))
    train: Training | None = field(default_factory=Training)

    def __post_init__(self) -> None:
        if (self.confidence is None) == (self.max_drop is None):
            raise OptionError("confidence", "give either confidence or max_drop", "such as confidence = 0.95")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise OptionError("confidence", f"{self.confidence} is not in (0, 1)", "give a share, such as 0.95")
        if self.max_drop is not None and self.max_drop < 0:
            raise OptionError("max_drop", f"{self.max_drop} is below 0", "give what may be lost, such as 0.005")
        if self.first < 1:
            raise OptionError("first", f"{self.first} is below 1", "give a whole number of at least 1")
        if self.gates.distil is not None:
            raise OptionError("gates", "the gate learns from the model itself", "move distil into the table train")


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Teach the layers to end, the gate when to go on, and put that before every layer behind an exit."""
    stack = find_stack(model)
    names = [f"{stack}.{place}" for place, _ in enumerate(model.get_submodule(stack).children())]
    if options.first >= len(names):
        raise UnsupportedModel(
            f"the first exit is behind {options.first} layers, and the model has {len(names)}",
            where="first",
            cure="leave exit-early out, or let it begin earlier" if len(names) > 1 else "leave exit-early out",
        )
    if options.train is not None:
        context.train(model, options.train, objective=_make_objective(model, stack, options.train, context))
    gate = RowGate(2 * measure_width(model.get_submodule(names[0]))).draw(context.make_generator("gates"))
    with freeze_all_but(model, {}), let_gates_learn([gate]):
        context.train(model, options.gates, name="gates", objective=learn_doubt(model, stack, gate))
    whole = context.evaluate(model) if context.held_out is not None else None
    gated = {name: gate_layer(model, name, copy.deepcopy(gate)) for name in names[options.first :]}
    confidence = _choose(model, tuple(gated.values()), options, context)
    facts: Facts = {
        "confidence": confidence,
        "runs": measure_runs(model, gated, context.held_out or context.require_samples()),
    }
    if whole is None:
        return facts
    return {**facts, "held_out_whole": whole, "held_out": context.evaluate(model)}


def _make_objective(model: nn.Module, stack: str, training: Training, context: Context) -> Objective:
    whole = context.make_objective(model, training)
    if training.distil is None:
        return learn_exits(model, stack, whole, whole)
    # A model cut short has not the layers to match the teacher's; it learns the answers.
    soft = training.distil.soft_weight or 1.0
    answers = replace(training.distil, soft_weight=soft, hidden_weight=0.0, attention_weight=0.0, masked_weight=0.0)
    early = context.make_objective(model, replace(training, distil=answers))
    return learn_exits(model, stack, whole, early)


def _choose(model: nn.Module, gated: Sequence[GatedLayer], options: Options, context: Context) -> float:
    """Set the thresholds; return the confidence, 1 where nothing may leave."""
    if options.confidence is not None:
        return _set_confidence(gated, options.confidence)
    assert options.max_drop is not None
    if context.held_out is None:
        raise DataError("max_drop is measured on held-out samples", where="max_drop", cure="pass --held-out FILE")
    least = _rate(model, context, gated, 1.0) - options.max_drop
    for confidence in _CONFIDENCES:
        if _rate(model, context, gated, confidence) >= least:
            return confidence
    return _set_confidence(gated, 1.0)


def _rate(model: nn.Module, context: Context, gated: Sequence[GatedLayer], confidence: float) -> float:
    _set_confidence(gated, confidence)
    found = context.evaluate(model)
    return found["accuracy"] if "accuracy" in found else found["correlation"]


def _set_confidence(gated: Sequence[GatedLayer], confidence: float) -> float:
    for module in gated:
        module.threshold = to_score(1 - confidence)
    return confidence
