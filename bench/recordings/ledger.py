"""The ledger of zeros: for each linear what its zeros look like, what they are good for, and what became of them.

In: rows filled by an export. Out: plain data, for its report and for that of a bench run. Must not import a runtime.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

DENSE = "dense"
# Each layer that was timed has its own figures in its reason.
_MOST_REASONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One linear, or another product with a weight that no kernel takes.

    Attributes:
        layer: The name of its node.
        shape: (outputs, inputs).
        zeros: Fraction in 0..1.
        pattern: ``dense``, ``2:4``, ``rows``, ``block NxM`` (outputs x inputs) or ``unstructured``.
        use: Where the zeros could serve, or why nowhere.
        kernel: What ships: ``dense``, the sparse operator and its block, or what TensorRT picked.
        why: Why that.
        gain: By shape (``8x128``): time of the dense form over time of the sparse one, each a model of one layer; empty
            where it was not timed, as in a plan. The kernel was chosen by it.
        gain_in_place: The same within the whole model that ships, against the one that is dense; empty where the layer
            ships dense.
        dense_bytes: What the weight takes in the file of the dense form it was compared with; what layers share counts
            for one of them, and a table that is looked up too for none.
        shipped_bytes: The same in the file that ships.
    """

    layer: str
    shape: tuple[int, int]
    zeros: float
    pattern: str
    use: str
    kernel: str
    why: str
    gain: Mapping[str, float] = field(default_factory=dict)
    gain_in_place: Mapping[str, float] = field(default_factory=dict)
    dense_bytes: int
    shipped_bytes: int

    @property
    def is_sparse(self) -> bool:
        """Whether the layer ships in a sparse form."""
        return self.kernel != DENSE

    def ship_dense(self, why: str) -> Self:
        """Return the row of the same layer where the dense form ships after all."""
        return replace(self, kernel=DENSE, why=why, shipped_bytes=self.dense_bytes) if self.is_sparse else self


def average_gain(gain: Mapping[str, float]) -> float:
    """Return the geometric mean over the shapes."""
    return math.exp(sum(map(math.log, gain.values())) / len(gain))


def group_rows(rows: Sequence[LedgerRow]) -> tuple[tuple[LedgerRow, ...], ...]:
    """Return the rows in groups of one shape, pattern, use and kernel, in their order.

    A table with a line a layer is long. Rows without zeros and without a use are left out.
    """
    groups: dict[tuple[object, ...], list[LedgerRow]] = {}
    for row in rows:
        if row.pattern != DENSE:
            groups.setdefault((row.shape, row.pattern, row.use, row.kernel), []).append(row)
    return tuple(map(tuple, groups.values()))


def join_reasons(group: Sequence[LedgerRow]) -> str:
    """Return the first reasons of a group, each once, and how many more there are."""
    reasons = list(dict.fromkeys(row.why for row in group))
    more = [f"and {len(reasons) - _MOST_REASONS} more"] if len(reasons) > _MOST_REASONS else []
    return "; ".join([*reasons[:_MOST_REASONS], *more])
