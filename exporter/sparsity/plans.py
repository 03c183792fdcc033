"""Which linears of a float graph ship sparse, and in which block: decided by measured time, and written down.

In: a float graph and a table of costs. Out: a plan, plain data; the edit is exporter/passes/sparse_linears.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.recordings.ledger import DENSE, LedgerRow, average_gain
from calibration.linears import find_linears
from calibration.lower.onnxruntime.sites import Site, find_sites
from exporter.passes.sparse_linears import OPERATORS, Values
from exporter.passes.untie_weights import open_for_lowering
from exporter.sparsity.costs import LinearCase, read_case
from exporter.sparsity.refused_products import Refused, list_refused
from exporter.weights.zeros import Block, Sparsity, StoredForm, describe_sparsity, name_block
from runtimes.sparse.storage import find_excess

# Timings of single layers scatter by some per cent: nearer than this, the dense form, which needs nothing, ships.
PAYS = 1.03
# A layer may be this much slower at one shape: timings scatter as much. What the other shapes gain buys no more.
SLOWER = 0.95
# What is expected to lose by more than this is not timed; what is this far behind the best form is not either.
_WORTH_TIMING = 0.8
_MOST_FORMS = 2
# Below this a call takes longer than the product.
_SMALLEST_WEIGHT = 4096
_HARDLY_ANY = "hardly any zeros"
_BYTES: Mapping[Values, int] = {"float32": 4, "int8": 1}


class FindGain(Protocol):
    """Tells how fast a linear is in a stored form, against its dense form."""

    def __call__(self, case: LinearCase, form: StoredForm, values: Values) -> Mapping[str, float]:
        """Return dense time over sparse time by shape."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePlan:
    """A row for each product with a weight in one graph, and the block of those that ship sparse, by name of node."""

    rows: tuple[LedgerRow, ...]
    blocks: Mapping[str, Block]


class SparsePlans:
    """Plans each float graph once for each type of stored values.

    ``find_gain`` is None where nothing can be timed, and ``untimed`` says why: then everything ships dense.
    """

    def __init__(self, *, find_gain: FindGain | None, untimed: str = "") -> None:
        self._find_gain, self._untimed = find_gain, untimed
        self._surveys: dict[Path, Mapping[str, Sparsity]] = {}
        self._refused: dict[Path, tuple[LedgerRow, ...]] = {}
        self._plans: dict[tuple[Path, Values], SparsePlan] = {}

    def is_pruned(self, graph: Path) -> bool:
        """Whether a weight of ``graph`` has zeros to speak of. Times nothing."""
        patterns = [sparsity.pattern for sparsity in self._survey(graph).values()]
        return any(pattern != DENSE for pattern in [*patterns, *(row.pattern for row in self._refuse(graph))])

    def may_pay(self, graph: Path) -> bool:
        """Whether a linear of ``graph`` is worth timing, and can be timed."""
        return self._find_gain is not None and any(
            not _explain_dense(sparsity, _choose_forms(sparsity)) for sparsity in self._survey(graph).values()
        )

    def choose_blocks(self, graph: Path, values: Values) -> Mapping[str, Block]:
        """Return the block of each linear of ``graph`` that ships sparse, by the name of its node."""
        return self.make_plan(graph, values).blocks

    def make_plan(self, graph: Path, values: Values) -> SparsePlan:
        """Return the plan for all linears of ``graph``, with rows for the products that are none."""
        if (graph, values) not in self._plans:
            survey = self._survey(graph)
            decided = [self._decide(site, survey[site.linear.node], values) for site in _read_sites(graph)]
            blocks = {row.layer: block for row, block in decided if block is not None}
            rows = (*(row for row, _ in decided), *self._refuse(graph))
            self._plans[graph, values] = SparsePlan(rows=rows, blocks=blocks)
        return self._plans[graph, values]

    def list_rows(self, graph: Path, values: Values) -> tuple[LedgerRow, ...]:
        """Return the rows for ``graph``: as planned, or dense ones where no candidate asked for a plan."""
        if (graph, values) in self._plans:
            return self._plans[graph, values].rows
        untimed = SparsePlans(find_gain=None, untimed=self._untimed or "no sparse form of this precision was offered")
        return untimed.make_plan(graph, values).rows

    def _survey(self, graph: Path) -> Mapping[str, Sparsity]:
        if graph not in self._surveys:
            sites = _read_sites(graph)
            self._surveys[graph] = {site.linear.node: describe_sparsity(site.weight.T != 0) for site in sites}
        return self._surveys[graph]

    def _refuse(self, graph: Path) -> tuple[LedgerRow, ...]:
        if graph not in self._refused:
            self._refused[graph] = tuple(map(_describe_refused, list_refused(open_for_lowering(graph))))
        return self._refused[graph]

    def _decide(self, site: Site, sparsity: Sparsity, values: Values) -> tuple[LedgerRow, Block | None]:
        outputs, inputs = site.weight.shape[::-1]
        scales = 4 * outputs if values == "int8" else 0
        dense_bytes = _BYTES[values] * outputs * inputs + scales
        forms = _choose_forms(sparsity)
        why = _explain_dense(sparsity, forms) or _explain_excess((outputs, inputs), values) or self._untimed
        gains = {} if why else self._measure(site, forms, values)
        best = _find_best(gains)
        shipped = best if best is not None and _pays(gains[best]) else None
        if best is not None:
            why = _explain_measured(best, gains[best])
        row = LedgerRow(
            layer=site.linear.node,
            shape=(outputs, inputs),
            zeros=round(sparsity.zeros, 6),
            pattern=sparsity.pattern,
            use=sparsity.use,
            kernel=f"{OPERATORS[values]} {name_block(shipped.block)}" if shipped is not None else DENSE,
            why=why,
            gain=gains[best] if best is not None else {},
            dense_bytes=dense_bytes,
            shipped_bytes=shipped.size_bytes(_BYTES[values]) + scales if shipped is not None else dense_bytes,
        )
        return row, shipped.block if shipped is not None else None

    def _measure(
        self, site: Site, forms: tuple[StoredForm, ...], values: Values
    ) -> dict[StoredForm, Mapping[str, float]]:
        assert self._find_gain is not None, "there is a reason where nothing can be timed"
        case = read_case(site)
        return {form: self._find_gain(case, form, values) for form in forms}


def _read_sites(graph: Path) -> tuple[Site, ...]:
    model = open_for_lowering(graph)
    return find_sites(model, find_linears(model))


def _describe_refused(refused: Refused) -> LedgerRow:
    sparsity = describe_sparsity(refused.weight != 0)
    why = _HARDLY_ANY if sparsity.pattern == DENSE else refused.why
    return LedgerRow(
        layer=refused.node,
        shape=(refused.weight.shape[0], refused.weight.shape[1]),
        zeros=round(sparsity.zeros, 6),
        pattern=sparsity.pattern,
        use="none" if sparsity.pattern == DENSE else f"none: {why}",
        kernel=DENSE,
        why=why,
        dense_bytes=refused.weight.nbytes,
        shipped_bytes=refused.weight.nbytes,
    )


def _choose_forms(sparsity: Sparsity) -> tuple[StoredForm, ...]:
    """Return the forms worth timing."""
    if not sparsity.forms:
        return ()
    bound = max(_WORTH_TIMING, _WORTH_TIMING * sparsity.forms[0].expected_gain)
    return tuple(form for form in sparsity.forms[:_MOST_FORMS] if form.expected_gain >= bound)


def _find_best(gains: Mapping[StoredForm, Mapping[str, float]]) -> StoredForm | None:
    """Return the fastest form, of those slower nowhere if any; of two alike the more promising one, which is first."""
    able = {form: gain for form, gain in gains.items() if not _list_slower(gain)}
    best: StoredForm | None = None
    for form, gain in (able or gains).items():
        if best is None or average_gain(gain) > PAYS * average_gain(gains[best]):
            best = form
    return best


def _pays(gain: Mapping[str, float]) -> bool:
    return average_gain(gain) >= PAYS and not _list_slower(gain)


def _list_slower(gain: Mapping[str, float]) -> list[str]:
    """Return the shapes at which the sparse form is slower than the dense one."""
    return [shape for shape, ratio in gain.items() if ratio < SLOWER]


def _explain_measured(form: StoredForm, gain: Mapping[str, float]) -> str:
    mean = average_gain(gain)
    measured = f"{mean:.2f} times as fast as dense, in {name_block(form.block)}"
    slower = _list_slower(gain)
    if mean >= PAYS and slower:
        return f"{measured}, but " + ", ".join(f"{gain[shape]:.2f} times at {shape}" for shape in slower)
    return f"{measured}: less than {PAYS - 1:.0%} may be chance" if 1 <= mean < PAYS else measured


def _explain_dense(sparsity: Sparsity, forms: tuple[StoredForm, ...]) -> str:
    """Return why a weight ships dense whatever the time, or nothing."""
    if sparsity.pattern == DENSE:
        return _HARDLY_ANY
    if sparsity.pattern == "2:4" and sparsity.forms[0].expected_gain < 1:
        return "2:4 does not pay on a CPU"
    if math.prod(sparsity.forms[0].shape) < _SMALLEST_WEIGHT:
        return "too small to gain anything"
    return "" if forms else sparsity.use.removeprefix("none: ")


def _explain_excess(shape: tuple[int, int], values: Values) -> str:
    """Return what makes a weight (outputs, inputs) too large for the kernels, or nothing."""
    excess = find_excess(shape, int8=values == "int8")
    return f"too large for the kernels: {excess}" if excess else ""
