"""``do = "quantise-aware"``: train with the rounding of 8 or 4 bits, the sizes of its steps learned too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from compression.context import Context
from compression.models.inputs import run_batches
from compression.models.layers import match_names, select_linears
from compression.options import OptionError
from compression.recipe import Facts
from compression.rounding.fake_quantise import fake_quantise, fake_quantise_embeddings, learn_all_scales
from compression.samples import draw_batches
from compression.training.loop import Training
from runtimes.errors import UsageError

# Samples that show how large the inputs of linears are; training goes on from there.
_SHOWN_SAMPLES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is rounded, and how it is trained.

    Attributes:
        bits: Of the weights: 8 with a scale for each row, or 4 with one for each 32 weights of a row.
        layers: Linears, by name or pattern; empty are those of the encoder layers.
        embeddings: Tables, by name or pattern; empty are none.
        activations: What linears read: ``int8`` with one learned scale each, or ``float``; None is ``int8`` beside
            8 bits and ``float`` beside 4, whose products ONNX Runtime computes in float.
        train: None only rounds.
    """

    bits: Literal[8, 4] = 8
    layers: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    activations: Literal["int8", "float"] | None = None
    train: Training | None = field(default_factory=Training)

    def __post_init__(self) -> None:
        """Refuse what no runtime computes."""
        if self.bits == 4 and self.activations == "int8":
            raise OptionError("activations", "weights of 4 bits are read by float inputs", "leave it out, or bits = 8")

    @property
    def rounds_input(self) -> bool:
        """Whether the inputs of linears are rounded too."""
        return (self.activations or ("int8" if self.bits == 8 else "float")) == "int8"


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Replace the layers, then train the whole model: zeros stay zeros, which rounding keeps."""
    linears = list(select_linears(model, options.layers))
    embeddings = _select_embeddings(model, options.embeddings)
    batches = draw_batches(context.require_samples(), _SHOWN_SAMPLES, context.make_generator("ranges"))
    runs = run_batches(model, batches, linears) if options.rounds_input else None
    fake_quantise(model, linears, runs, bits=options.bits)
    fake_quantise_embeddings(model, embeddings, bits=options.bits)
    facts: Facts = {"linears": len(linears), "embeddings": len(embeddings)}
    if context.held_out is not None:
        facts["held_out_before_training"] = context.evaluate(model)
    if options.train is not None:
        with learn_all_scales(model):
            context.train(model, options.train)
    if context.held_out is not None:
        facts["held_out"] = context.evaluate(model)
    return facts


def _select_embeddings(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    tables = [name for name, module in model.named_modules() if type(module) is nn.Embedding]
    try:
        return match_names(tables, patterns, "embedding") if patterns else []
    except UsageError as error:
        raise UsageError(error.what, where="embeddings", cure=error.cure) from error
