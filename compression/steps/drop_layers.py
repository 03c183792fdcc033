"""``do = "drop-layers"``: whole encoder layers leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from compression.context import Context
from compression.models.layers import find_stack, match_names
from compression.objectives.measure import measure
from compression.options import OptionError
from compression.recipe import Facts
from compression.samples import draw_batches, draw_samples
from compression.structure.drop_layers import choose_by_loss, choose_by_score, choose_evenly, drop_layers, score_layers
from compression.training.loop import Training
from runtimes.errors import UsageError

_PURPOSE = "layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which layers leave: give ``keep`` or ``layers``.

    Attributes:
        keep: How many stay.
        layers: Names of those that leave, such as ``encoder.layer.3``.
        importance: For ``keep``: ``activation`` lets those go that turn their inputs least (no labels), ``loss`` one
            after the other those without which the measured loss is least, ``spread`` keeps evenly spaced ones.
        samples: How many samples are looked at.
        train: How to recover; None leaves that to a later step.
    """

    keep: int | None = None
    layers: tuple[str, ...] = ()
    importance: Literal["activation", "loss", "spread"] = "activation"
    samples: int = 512
    train: Training | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (not self.layers):
            raise OptionError(
                "keep", "give either keep or layers", "say how many layers stay, or name those that leave"
            )
        if self.keep is not None and self.keep < 1:
            raise OptionError("keep", f"{self.keep} layers are no model", "keep at least 1")
        if self.samples < 1:
            raise OptionError("samples", f"{self.samples} is below 1", "give a whole number of at least 1")


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Remove layers, and train where asked."""
    stack = find_stack(model)
    names = [f"{stack}.{place}" for place, _ in enumerate(model.get_submodule(stack).children())]
    kept = _choose(model, stack, names, options, context)
    drop_layers(model, stack, kept)
    if options.train is not None:
        context.train(model, options.train)
    return {"stack": stack, "kept": kept, "of": len(names)}


def _choose(model: nn.Module, stack: str, names: list[str], options: Options, context: Context) -> list[int]:
    if options.keep is None:
        gone = match_names(names, options.layers, "layer")
        if len(gone) == len(names):
            raise UsageError("every layer would leave", where="layers", cure="name fewer layers")
        return [place for place, name in enumerate(names) if name not in gone]
    if options.keep > len(names):
        raise UsageError(
            f"cannot keep {options.keep} layers of {len(names)}", where="keep", cure=f"keep at most {len(names)}"
        )
    if options.importance == "spread":
        return choose_evenly(len(names), options.keep)
    if options.importance == "loss":
        return choose_by_loss(model, stack, options.keep, _make_loss(options, context))
    batches = draw_batches(context.require_unlabelled(), options.samples, context.make_generator(_PURPOSE))
    return choose_by_score(score_layers(model, stack, batches), options.keep)


def _make_loss(options: Options, context: Context) -> Callable[[nn.Module], float]:
    samples = draw_samples(context.require_samples(), options.samples, context.make_generator(_PURPOSE))
    return lambda model: measure(model, samples, context.tokens)["loss"]
