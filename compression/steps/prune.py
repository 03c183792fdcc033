"""``do = "prune"``: zeros in the weights of linears: single ones, blocks, or two of four; at once or while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from torch import nn

from compression.context import Context
from compression.models.layers import select_linears
from compression.options import OptionError
from compression.pruning.gradual import CubicSchedule, Goal, PruneGradually
from compression.pruning.magnitude import apply_masks, choose_masks, draw_scores, score_magnitude
from compression.pruning.masks import KeepZeros, measure_zeros
from compression.pruning.movement import PruneByMovement
from compression.pruning.patterns import PATTERNS, NOfM
from compression.pruning.permutation import permute_inputs
from compression.pruning.second_order import prune_second_order
from compression.recipe import Facts
from compression.samples import draw_batches
from compression.training.loop import Training
from runtimes.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What becomes zero, by which measure, and when.

    Attributes:
        method: ``magnitude`` zeros the smallest weights, ``movement`` those that training makes smaller,
            ``second-order`` those that the others can best make up for, and makes up for them; ``random`` any.
        sparsity: The share of zeros, in [0, 1). A pattern N:M has its own.
        pattern: What is zeroed together: blocks of outputs x inputs, or all but N of every M neighbouring inputs.
        scope: Whether every layer gets the same share of zeros, or all weights are ranked in one list.
        schedule: ``one-shot`` before any training; ``cubic`` while training, more and more.
        prune_from: With ``cubic``, where zeros begin to grow, in 0..1 of the training.
        prune_until: With ``cubic``, where they have grown; the rest recovers.
        permute: With N:M, reorder inputs first so that more magnitude stays; the model computes the same.
        samples: How many samples ``second-order`` looks at.
        layers: Patterns of names; all linears of the encoder layers where empty.
        train: How to train: while pruning with ``cubic``, to recover with ``one-shot``.
    """

    method: Literal["magnitude", "movement", "second-order", "random"] = "magnitude"
    sparsity: float | None = None
    pattern: Literal["1x1", "2:4", "4:8", "16x1", "8x1", "4x1", "1x4", "4x4", "16x4"] = "1x1"
    scope: Literal["layer", "global"] = "layer"
    schedule: Literal["one-shot", "cubic"] = "one-shot"
    prune_from: float = 0.0
    prune_until: float = 0.7
    permute: bool = False
    samples: int = 256
    layers: tuple[str, ...] = ()
    train: Training | None = None

    def __post_init__(self) -> None:
        self._check_amount()
        self._check_method()
        if not 0 <= self.prune_from < self.prune_until <= 1:
            raise OptionError(
                "prune_until",
                f"{self.prune_until} is not above prune_from = {self.prune_from} and in [0, 1]",
                "give shares of the training with 0 <= prune_from < prune_until <= 1",
            )
        if self.schedule == "cubic" and self.train is None:
            raise OptionError("schedule", "'cubic' prunes while training", "add train = {...}")

    def _check_amount(self) -> None:
        pattern = PATTERNS[self.pattern]
        if isinstance(pattern, NOfM):
            if self.sparsity not in {None, pattern.most_pruned}:
                raise OptionError(
                    "sparsity", f"{self.sparsity}: {self.pattern} has {pattern.most_pruned:g}", "leave it out"
                )
            return
        if self.sparsity is None:
            raise OptionError("sparsity", "it is missing", "add sparsity = 0.8, say")
        if not 0 <= self.sparsity < 1:
            raise OptionError("sparsity", f"{self.sparsity} is not in [0, 1)", "give the share of zeros, such as 0.8")
        if self.permute:
            raise OptionError("permute", f"with blocks of {self.pattern} it would keep no more", "use pattern = '2:4'")

    def _check_method(self) -> None:
        if self.method == "movement" and self.schedule != "cubic":
            raise OptionError("schedule", "'movement' prunes while training", "use schedule = 'cubic'")
        if self.method == "second-order":
            if self.schedule != "one-shot":
                raise OptionError("schedule", "'second-order' prunes at once", "use schedule = 'one-shot'")
            if self.scope != "layer":
                raise OptionError("scope", "'second-order' prunes layer by layer", "use scope = 'layer'")
        if self.samples < 1:
            raise OptionError("samples", f"{self.samples} is below 1", "give some hundred")

    @property
    def goal(self) -> Goal:
        """What is wanted in the end."""
        pattern = PATTERNS[self.pattern]
        share = pattern.most_pruned if self.sparsity is None else self.sparsity
        return Goal(share=share, pattern=pattern, scope=self.scope)


def apply(model: nn.Module, options: Options, context: Context) -> Facts:
    """Prune, and train where it is asked for.

    Raises:
        UsageError: no layer has the name, or one has a shape that the pattern does not fit.
        DataError: there is no data and the method or the training needs some.
        UnsupportedModel: nothing can be reordered, and that is asked for.
    """
    linears = select_linears(model, options.layers)
    pattern = options.goal.pattern
    _check_shapes(linears, options)
    facts: Facts = {}
    if options.permute and isinstance(pattern, NOfM):
        kept = permute_inputs(model, list(linears), pattern, context.make_generator("permute"))
        facts["magnitude_kept"] = {name: asdict(shares) for name, shares in kept.items()}
    if options.schedule == "cubic":
        _prune_while_training(model, linears, options, context)
    else:
        facts.update(_prune_at_once(model, linears, options, context))
        if options.train is not None:
            # With scope global a layer may have lost less than what counts as pruned elsewhere.
            held = KeepZeros(model, always=linears.keys())
            context.train(model, options.train, hooks=(held,), keep_zeros=False)
    facts["sparsity"] = measure_zeros([linear.weight for linear in linears.values()])
    facts["layers"] = {name: measure_zeros([linear.weight]) for name, linear in linears.items()}
    return facts


def _check_shapes(linears: Mapping[str, nn.Linear], options: Options) -> None:
    for name, linear in linears.items():
        problem = options.goal.pattern.check_shape(linear.weight.shape)
        if problem is not None:
            raise UsageError(
                f"{options.pattern} does not fit: {problem}", where=name, cure="name the layers that fit in layers"
            )


def _prune_at_once(model: nn.Module, linears: Mapping[str, nn.Linear], options: Options, context: Context) -> Facts:
    goal = options.goal
    if options.method == "second-order":
        samples = draw_batches(context.require_unlabelled(), options.samples, context.make_generator("samples"))
        return {"output_error": prune_second_order(model, linears, goal.share, goal.pattern, samples)}
    if options.method == "random":
        scores = draw_scores(linears, context.make_generator("random"))
    else:
        scores = score_magnitude(linears)
    apply_masks(linears, choose_masks(scores, goal.share, goal.pattern, goal.scope))
    return {}


def _prune_while_training(
    model: nn.Module, linears: Mapping[str, nn.Linear], options: Options, context: Context
) -> None:
    assert options.train is not None, "the options refuse it"
    goal = options.goal
    there = min(measure_zeros([linear.weight for linear in linears.values()]), goal.share)
    schedule = CubicSchedule(first=there, last=goal.share, begin=options.prune_from, end=options.prune_until)
    pruner: PruneGradually | PruneByMovement
    if options.method == "movement":
        pruner = PruneByMovement(linears, goal, schedule)
    elif options.method == "random":
        drawn = draw_scores(linears, context.make_generator("random"))
        pruner = PruneGradually(linears, goal, schedule, lambda _: drawn)
    else:
        pruner = PruneGradually(linears, goal, schedule, score_magnitude)
    others = KeepZeros(model, without=linears.keys())
    context.train(model, options.train, hooks=(others, pruner), keep_zeros=False)
    pruner.finish()
