"""``do = "new-student"``: a new, smaller language model with the vocabulary of the one before, to be taught by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from compression.context import Context
from compression.models.forward import predicts_next
from compression.options import OptionError
from compression.recipe import Facts
from compression.structure.new_student import StudentShape, make_student
from compression.training.loop import Training, derive_seed
from runtimes.errors import UnsupportedModel

# Neurons of a layer where none are named: four times the width, and where gates are a third linear as many weights.
_WIDER, _GATED_MULTIPLE = 4, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The student's sizes.

    Attributes:
        architecture: ``gpt2``, or ``llama``: rotary positions, gated feed-forwards.
        layers: How many.
        width: Of the hidden states.
        heads: Of each layer; they divide ``width``.
        kv_heads: With ``llama``, how many keys and values the heads share; None is one for each.
        neurons: Of each feed-forward; None is four times the width, or eight thirds of it where they are gated.
        max_length: The longest text, in tokens; None is the longest window of the data. ``gpt2`` learns a vector for
            each place, so it can have no more.
        embeddings: ``teacher`` starts with the teacher's words, ``random`` with new ones.
        train: How it learns; None leaves that to a later step.
    """

    architecture: Literal["gpt2", "llama"] = "gpt2"
    layers: int = 6
    width: int = 256
    heads: int = 4
    kv_heads: int | None = None
    neurons: int | None = None
    max_length: int | None = None
    embeddings: Literal["teacher", "random"] = "teacher"
    train: Training | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "kv_heads", "neurons"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(name, f"{value} is below 1", "give a whole number of at least 1")
        if self.max_length is not None and self.max_length < 2:
            raise OptionError("max_length", f"{self.max_length} tokens hold no text", "give 2 or more")
        if self.width % self.heads:
            raise OptionError("heads", f"{self.heads} do not divide the width {self.width}", "give a divisor of it")
        if self.kv_heads is not None and (self.architecture != "llama" or self.heads % self.kv_heads):
            raise OptionError(
                "kv_heads",
                f"{self.kv_heads} of {self.heads} heads of {self.architecture} cannot be shared",
                "use architecture = 'llama' and a divisor of heads, or leave it out",
            )

    def find_shape(self, longest: int) -> StudentShape:
        """Return all sizes, those that were left out included, where the longest window has so many tokens."""
        gated = round(8 / 3 * self.width / _GATED_MULTIPLE) * _GATED_MULTIPLE
        usual = _WIDER * self.width if self.architecture == "gpt2" else max(gated, _GATED_MULTIPLE)
        return StudentShape(
            architecture=self.architecture,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads or self.heads,
            neurons=self.neurons or usual,
            max_length=self.max_length or longest,
        )


def make(model: nn.Module, options: Options, context: Context) -> nn.Module:
    """Return the student, which goes on in the place of ``model``.

    Raises:
        UnsupportedModel: ``model`` is no causal language model.
        OptionError: the windows of the data are longer than the student reads, or ``gpt2`` is to read longer ones.
    """
    if not predicts_next(model):
        raise UnsupportedModel(
            f"{type(model).__name__} is no language model to make a smaller one of",
            where=type(model).__name__,
            cure="use drop-layers, prune-heads and prune-neurons",
        )
    sets = (context.train_samples, context.held_out, context.unlabelled)
    longest = max((len(row["input_ids"]) for some in sets if some for row in some.rows), default=2)
    shape = options.find_shape(longest)
    _check_length(shape, longest)
    seed = derive_seed(context.seed, context.step, "student")
    return make_student(model, shape, seed, keep_words=options.embeddings == "teacher")


def _check_length(shape: StudentShape, longest: int) -> None:
    if longest > shape.max_length:
        raise OptionError(
            "max_length",
            f"{shape.max_length} is less than the windows of {longest} tokens that it is to read",
            "raise it, or lower max_length of the recipe",
        )
    if shape.architecture == "gpt2" and longest < shape.max_length:
        raise OptionError(
            "max_length",
            f"no window has more than {longest} tokens, so that what gpt2 learns of the places up to "
            f"{shape.max_length} would never be taught",
            "lower it or leave it out, raise max_length of the recipe, or use architecture = 'llama'",
        )


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Teach the student where asked."""
    if options.train is not None:
        context.train(model, options.train)
    facts: Facts = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    measured = options.train is not None and context.held_out is not None
    return {**facts, "held_out": context.evaluate(model)} if measured else facts
