"""What the zeros of one weight look like, and what they are good for.

In: where a weight is not zero. Out: zero fraction, pattern, how it would be stored, what a runtime could make of it.
Must not import: anything but numpy and how sparse weights are stored. Blocks are (outputs, inputs), in this order.
"""

from __future__ import annotations

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
    """

    zeros: float
    pattern: str
    use: str
    forms: tuple[StoredForm, ...]
    best: StoredForm | None


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
    use = _find_use(pattern, best, nonzero.shape[1]) if best is not None else "none"
    return Sparsity(zeros=zeros, pattern=pattern, use=use, forms=forms, best=best)


def _list_forms(nonzero: NDArray[np.bool_]) -> tuple[StoredForm, ...]:
    shape = (nonzero.shape[0], nonzero.shape[1])
    forms = [StoredForm(shape=shape, block=block, entries=count_entries(nonzero, block)) for block in BLOCKS]
    return tuple(sorted(forms, key=lambda form: (-form.expected_gain, form.size_bytes(1))))


def _find_pattern(nonzero: NDArray[np.bool_], zeros: float) -> str:
    if zeros < DENSE_BELOW:
        return "dense"
    if _explains(nonzero.any(axis=1).mean(), zeros):
        return "rows"
    inputs = nonzero.shape[1]
    # Before the blocks: whole columns may be either, and sparse tensor cores take them.
    if inputs % 4 == 0 and int(nonzero.reshape(-1, inputs // 4, 4).sum(axis=2).max()) <= 2:
        return "2:4"
    candidates = _PRUNED_IN if _explains(_cover(nonzero, _SMALLEST), zeros) else ((1, 4),)
    for block in candidates:
        if _explains(_cover(nonzero, block), zeros):
            return f"block {name_block(block)}"
    return "unstructured"


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


def _find_use(pattern: str, best: StoredForm, inputs: int) -> str:
    uses = ["drop the rows"] if pattern == "rows" else []
    if pattern == "2:4" and inputs % 16 == 0:
        uses.append("GPU 2:4")
    if best.expected_gain >= 1:
        uses.append(f"CPU sparse kernels, {name_block(best.block)}")
    if uses:
        return " or ".join(uses)
    if pattern == "2:4":
        return "none: 2:4 needs inputs in multiples of 16"
    return f"none: {name_block(best.block)} pays from {PAYS_FROM[best.block]:.0%} zeros"
