"""What the zeros of one weight look like, and what they are good for.

In: where a weight is not zero. Out: zero fraction, pattern, how it would be stored, what a runtime could make of it.
Must not import: anything but numpy and how sparse weights are stored. Blocks are (outputs, inputs), in this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtimes.sparse.storage import BLOCKS, count_bytes, count_entries, cut_blocks

Block = tuple[int, int]

# A few zeros are no pattern: rounding a dense float weight to 7 or 8 bits alone makes 2 to 4 % of them.
DENSE_BELOW = 0.05
# Blocks that weights are pruned in, the largest first; up to 16x4 there are kernels for them.
_PRUNED_IN = ((32, 32), (16, 16), (8, 8), (16, 4), (16, 1), (4, 4), (8, 1), (4, 1), (1, 4))
# All of them but 1x4 are made of these.
_SMALLEST = (4, 1)
# cuSPARSELt takes 2:4 in halves and bytes with inputs in multiples of 16 at least (torch/sparse/semi_structured.py).
_TWO_FOUR_INPUTS = 16
# Zeros in the stored form from which a float kernel is as fast as the dense product. What an export ships it times;
# this says what is worth timing, and what `inspect` expects.
PAYS_FROM = {
    (1, 1): 0.55, (1, 4): 0.55, (4, 1): 0.30, (8, 1): 0.30, (16, 1): 0.30, (4, 4): 0.30, (16, 4): 0.30,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForm:
    """A weight of ``shape`` (outputs, inputs) in ``entries`` blocks."""

    shape: tuple[int, int]
    block: Block
    entries: int

    @property
    def density(self) -> float:
        """Stored values, zeros within blocks among them, over all values."""
        return self.entries * self.block[0] * self.block[1] / (self.shape[0] * self.shape[1])

    @property
    def expected_gain(self) -> float:
        """How many times as fast as dense it should be, in float on a CPU."""
        return (1 - PAYS_FROM[self.block]) / max(self.density, 1e-3)

    def size_bytes(self, value_bytes: int) -> int:
        """What it takes with values of so many bytes."""
        return count_bytes(self.shape, self.block, self.entries, value_bytes=value_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """What is known of one weight's zeros.

    Attributes:
        zeros: Fraction in 0..1.
        pattern: ``dense``, ``2:4``, ``rows``, ``block NxM`` (outputs x inputs) or ``unstructured``.
        use: What they are good for, or ``none`` and why.
        forms: How it could be stored for the sparse kernels of the CPU, the most promising first; empty where dense.
        best: Of the forms the one that ``use`` names, or None: the first where it pays, else that of the pattern.
        two_four: Whether sparse tensor cores take it: it is 2:4, and the inputs are as many as they need.
    """

    zeros: float
    pattern: str
    use: str
    forms: tuple[StoredForm, ...]
    best: StoredForm | None
    two_four: bool


def name_block(block: Block) -> str:
    """``(16, 1)`` -> ``16x1``."""
    return f"{block[0]}x{block[1]}"


def describe_sparsity(nonzero: NDArray[np.bool_], *, multiplied: bool = True) -> Sparsity:
    """Describe a weight given as where it is not zero, shape (outputs, inputs).

    What is not ``multiplied`` but only looked up has no forms: there are kernels for products alone.
    2:4 means at most two of every four neighbours along the inputs, which is what sparse tensor cores multiply.
    """
    zeros = 1.0 - float(nonzero.mean()) if nonzero.size else 0.0
    pattern = _find_pattern(nonzero, zeros)
    forms = _list_forms(nonzero) if pattern != "dense" and multiplied else ()
    best = _choose_form(pattern, forms) if forms else None
    two_four = multiplied and _fits_two_four(pattern, nonzero.shape[1])
    use = _find_use(pattern, best, two_four=two_four) if best is not None else "none"
    return Sparsity(zeros=zeros, pattern=pattern, use=use, forms=forms, best=best, two_four=two_four)


def describe_convolution(nonzero: NDArray[np.bool_]) -> Sparsity:
    """Describe a convolution's weight given as where it is not zero, shape (outputs, channels, *kernel).

    2:4 lies along the channels, in each place of the kernel by itself. On a CPU there are no kernels for the zeros.
    """
    outputs, channels = nonzero.shape[:2]
    zeros = 1.0 - float(nonzero.mean()) if nonzero.size else 0.0
    pattern = _find_pattern(nonzero.reshape(outputs, math.prod(nonzero.shape[1:])), zeros)
    if pattern not in ("dense", "rows"):
        along_channels = np.moveaxis(nonzero, 1, -1).reshape(-1, channels)
        pattern = "2:4" if _is_two_four(along_channels) else pattern.replace("2:4", "unstructured")
    two_four = _fits_two_four(pattern, channels)
    uses = _list_uses(pattern, two_four=two_four)
    use = " or ".join(uses) or _explain_useless(pattern, "none: no sparse kernels for convolutions")
    use = "none" if pattern == "dense" else use
    return Sparsity(zeros=zeros, pattern=pattern, use=use, forms=(), best=None, two_four=two_four)


def _list_forms(nonzero: NDArray[np.bool_]) -> tuple[StoredForm, ...]:
    shape = (nonzero.shape[0], nonzero.shape[1])
    forms = [StoredForm(shape=shape, block=block, entries=count_entries(nonzero, block)) for block in BLOCKS]
    return tuple(sorted(forms, key=lambda form: (-form.expected_gain, form.size_bytes(1))))


def _find_pattern(nonzero: NDArray[np.bool_], zeros: float) -> str:
    if zeros < DENSE_BELOW:
        return "dense"
    if _explains(nonzero.any(axis=1).mean(), zeros):
        return "rows"
    # Before the blocks: whole columns may be either, and sparse tensor cores take them.
    if _is_two_four(nonzero):
        return "2:4"
    candidates = _PRUNED_IN if _explains(_cover(nonzero, _SMALLEST), zeros) else ((1, 4),)
    for block in candidates:
        if _explains(_cover(nonzero, block), zeros):
            return f"block {name_block(block)}"
    return "unstructured"


def _is_two_four(nonzero: NDArray[np.bool_]) -> bool:
    inputs = nonzero.shape[1]
    return inputs % 4 == 0 and int(nonzero.reshape(-1, inputs // 4, 4).sum(axis=2).max()) <= 2


def _cover(nonzero: NDArray[np.bool_], block: Block) -> float:
    """Return the share of a weight that lies in blocks with something in them; what an edge block lacks counts not."""
    kept = cut_blocks(nonzero, block).any(axis=(2, 3))
    whole = np.repeat(np.repeat(kept, block[0], axis=0), block[1], axis=1)
    return float(whole[: nonzero.shape[0], : nonzero.shape[1]].mean())


def _explains(kept: float, zeros: float) -> bool:
    """Whether a kind of structure, which keeps this share, accounts for the zeros, but for one in a hundred."""
    return 1.0 - kept >= 0.99 * zeros


def _choose_form(pattern: str, forms: tuple[StoredForm, ...]) -> StoredForm:
    if forms[0].expected_gain >= 1 or pattern.startswith("block"):
        return forms[0]
    return next(form for form in forms if form.block == BLOCKS[0])


def _find_use(pattern: str, best: StoredForm, *, two_four: bool) -> str:
    uses = _list_uses(pattern, two_four=two_four)
    if best.expected_gain >= 1:
        uses.append(f"CPU sparse kernels, {name_block(best.block)}")
    pays = f"none: {name_block(best.block)} pays from {PAYS_FROM[best.block]:.0%} zeros"
    return " or ".join(uses) or _explain_useless(pattern, pays)


def _fits_two_four(pattern: str, inputs: int) -> bool:
    return pattern == "2:4" and inputs % _TWO_FOUR_INPUTS == 0


def _list_uses(pattern: str, *, two_four: bool) -> list[str]:
    """Return what serves a pattern beyond the kernels of the CPU."""
    if pattern == "rows":
        return ["drop the rows"]
    return ["GPU 2:4"] if two_four else []


def _explain_useless(pattern: str, otherwise: str) -> str:
    return f"none: 2:4 needs inputs in multiples of {_TWO_FOUR_INPUTS}" if pattern == "2:4" else otherwise
