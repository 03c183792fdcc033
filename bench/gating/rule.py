"""Did head become slower or larger than base? The rule of the gate, on raw samples and figures.

In: samples by shape, figures, limits. Out: verdicts (bench/gating/verdict.py). Pure; needs numpy alone.

The rule. The limit L (5 %) is the slowdown that must not pass unseen, so the gate does not wait for proof that more
than L was lost, which at a loss of exactly L would hardly ever come. With the bound on the slowdown of a shape:

- **slower**: it excludes L/2 and less, and cannot exclude L;
- **same**: it excludes L and more (less than L may have been lost: that is what the limit allows);
- **faster**: the mirror of slower;
- **inconclusive**: it is too wide to say.

At a true loss of L, "same" is then as rare as the bound is wrong on one side; at none, "slower" needs an error of half
the limit and half the bound's width together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.gating.verdict import FigureVerdict, ShapeVerdict
from bench.recordings.recording import Figures
from bench.timing.compare import MIN_ROUNDS, Bootstrap, Verdict, resample_apart, resample_paired
from bench.timing.samples import Samples
from runtimes.errors import UsageError

# Of memory after loading: the same file in a new process differs by as much (allocator, page cache), and by some of the
# pieces that allocators and thread stacks take it in, which is much of a small model.
MEMORY_JITTER = 0.05
MEMORY_PIECES_BYTES = 2 << 20
# What is judged without a clock; all but the last exactly.
JUDGED_FIGURES = ("size_bytes", "nodes", "parameters", "load_memory_bytes")
# A bound this much narrower than the limit decides all but the rarest cases on either side of the rule.
_TIGHT = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What the gate holds head to.

    Attributes:
        max_regression: The slowdown that must not pass (0.05 is 5 %).
        confidence: Of the bounds, two-sided, over all shapes together.
        max_growth: How much larger a figure may be (0 is not at all).
    """

    max_regression: float = 0.05
    confidence: float = 0.99
    max_growth: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.max_regression <= 1 or not 0.5 < self.confidence < 1 or self.max_growth < 0:
            raise UsageError(
                f"a limit of {self.max_regression}, a confidence of {self.confidence} or a growth of {self.max_growth}"
                " is out of range",
                cure="use a limit above 0 up to 1, a confidence between 0.5 and 1, and a growth of 0 or more",
            )


def judge_times(
    pairs: Mapping[str, tuple[Samples, Samples]], limits: GateLimits, *, paired: bool
) -> tuple[ShapeVerdict, ...]:
    """Judge every shape.

    "Slower" and "faster" are corrected over the shapes by Holm's method (Holm 1979, "A Simple Sequentially Rejective
    Multiple Test Procedure"), so that more shapes make no more false alarms. "Same" needs no correction: all shapes
    must be the same for the gate to say so.

    Args:
        pairs: By shape, the samples of base and of head.
        limits: What head is held to.
        paired: Whether block ``i`` of both belongs to one round.

    Raises:
        DataError: there are no samples, or rounds that do not pair.
        UsageError: there are no shapes.
    """
    if not pairs:
        raise UsageError("base and head have no shape in common", cure="measure both at the same shapes")
    resample = resample_paired if paired else resample_apart
    found = {shape: resample(base, head) for shape, (base, head) in pairs.items()}
    half = math.log1p(limits.max_regression / 2)
    slower = _reject_by_holm(found, limits, {shape: one.share_above(-half) for shape, one in found.items()}, -half)
    faster = _reject_by_holm(found, limits, {shape: 1 - one.share_above(half) for shape, one in found.items()}, half)
    return tuple(
        _describe(shape, pairs[shape], one, limits, _judge(one, limits, shape in slower, shape in faster))
        for shape, one in found.items()
    )


def _reject_by_holm(
    found: Mapping[str, Bootstrap], limits: GateLimits, evidence: Mapping[str, float], value: float
) -> set[str]:
    """Return the shapes whose ratio lies beyond ``value`` (below it if negative): the strongest evidence first."""
    rejected: set[str] = set()
    for shape in sorted(evidence, key=lambda one: evidence[one]):
        confidence = 1 - (1 - limits.confidence) / (len(found) - len(rejected))
        if found[shape].blocks < count_needed_rounds(confidence):
            break
        low, high = found[shape].bound(confidence)
        if not (high < value if value < 0 else low > value):
            break
        rejected.add(shape)
    return rejected


def _judge(found: Bootstrap, limits: GateLimits, is_slower: bool, is_faster: bool) -> Verdict:
    if found.blocks < count_needed_rounds(limits.confidence):
        return "inconclusive"
    return apply_rule(found.bound(limits.confidence), limits, is_slower=is_slower, is_faster=is_faster)


def apply_rule(bound: tuple[float, float], limits: GateLimits, *, is_slower: bool, is_faster: bool) -> Verdict:
    """Apply the rule of this module to a bound on the logarithm of the ratio.

    Args:
        bound: Its low and its high end.
        limits: What head is held to.
        is_slower: Whether a slowdown of half the limit or less is excluded.
        is_faster: The mirror of that.
    """
    (low, high), limit = bound, math.log1p(limits.max_regression)
    if is_slower and low <= -limit:
        return "slower"
    if is_faster and high >= limit:
        return "faster"
    return "same" if low > -limit else "inconclusive"


def _describe(
    shape: str, pair: tuple[Samples, Samples], found: Bootstrap, limits: GateLimits, verdict: Verdict
) -> ShapeVerdict:
    base, head = pair
    low, high = found.bound(limits.confidence)
    return ShapeVerdict(
        shape=shape,
        verdict=verdict,
        ratio=math.exp(found.center),
        low=math.exp(low),
        high=math.exp(high),
        rounds=found.blocks,
        base_ns=base.median_ns(),
        head_ns=head.median_ns(),
    )


def count_needed_rounds(confidence: float) -> int:
    """Return the fewest rounds whose extremes can bound a median at this confidence: ``2**-n`` on either side."""
    return max(MIN_ROUNDS, math.ceil(math.log2(2 / (1 - confidence))))


def is_tight(pairs: Mapping[str, tuple[Samples, Samples]], limits: GateLimits) -> bool:
    """Return whether every shape's bound is narrow enough to stop measuring. It looks at no verdict.

    Not before twice the rounds that a bound needs: few rounds can lie close together by luck.
    """
    for base, head in pairs.values():
        found = resample_paired(base, head)
        low, high = found.bound(limits.confidence)
        is_early = found.blocks < 2 * count_needed_rounds(limits.confidence)
        if is_early or high - low > 2 * _TIGHT * limits.max_regression:
            return False
    return True


def decide(shapes: Sequence[ShapeVerdict]) -> Verdict:
    """Return the verdict over all shapes: slower if any is, else inconclusive, else faster if any is, else same."""
    verdicts = {shape.verdict for shape in shapes}
    order: tuple[Verdict, ...] = ("slower", "inconclusive", "faster")
    return next((verdict for verdict in order if verdict in verdicts), "same")


def judge_figures(base: Figures, head: Figures, limits: GateLimits) -> tuple[FigureVerdict, ...]:
    """Judge what needs no clock: size, nodes and parameters exactly, memory after loading beyond its jitter.

    A figure that is not known of both is left out.
    """
    verdicts = []
    for name in JUDGED_FIGURES:
        ours, theirs = getattr(base, name), getattr(head, name)
        if ours is None or theirs is None:
            continue
        allowed = limits.max_growth
        if name == "load_memory_bytes":
            allowed += max(MEMORY_JITTER, MEMORY_PIECES_BYTES / max(ours, 1))
        change = theirs / ours - 1 if ours else math.inf if theirs else 0.0
        verdicts.append(
            FigureVerdict(
                name=name, base=ours, head=theirs, change=change, allowed=allowed, ok=theirs <= ours * (1 + allowed)
            )
        )
    return tuple(verdicts)
