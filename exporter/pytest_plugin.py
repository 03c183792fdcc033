"""A pytest fixture, ``stepdown_gate``: a test that fails if a model became slower or larger.

In: two models, or two sample files. Out: a passed, failed or skipped test. pytest loads this module in every session of
an environment with stepdown, so it must not import anything but pytest until the fixture is called.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from bench.gating.verdict import GateResult


class StepdownGate(Protocol):
    """What the fixture ``stepdown_gate`` is."""

    def __call__(
        self,
        base: str | os.PathLike[str],
        head: str | os.PathLike[str],
        *,
        max_regression: float = 0.05,
        max_growth: float = 0.0,
        shapes: Sequence[tuple[int, int]] = (),
        time_budget_s: float = 30.0,
        skip_inconclusive: bool = False,
    ) -> GateResult:
        """Judge ``head`` against ``base``, as ``stepdown gate`` does, and fail the test where that would fail.

        Args:
            base: The reference: a model, or a sample file.
            head: What is judged, of the same kind.
            max_regression: The slowdown that must not pass.
            max_growth: How much larger head may be.
            shapes: (batch, sequence) pairs; empty judges 1x128 of models.
            time_budget_s: How long to run models at most.
            skip_inconclusive: Skip the test where noise leaves the answer open; otherwise it fails.

        Returns:
            What was found, where the test goes on.

        Raises:
            StepdownError: it could not be judged: the models differ, one is not there or crashed.
        """
        ...


@pytest.fixture
def stepdown_gate() -> StepdownGate:
    """Return the function that judges one model against another; see :class:`StepdownGate`."""
    return _gate


def _gate(
    base: str | os.PathLike[str],
    head: str | os.PathLike[str],
    *,
    max_regression: float = 0.05,
    max_growth: float = 0.0,
    shapes: Sequence[tuple[int, int]] = (),
    time_budget_s: float = 30.0,
    skip_inconclusive: bool = False,
) -> GateResult:
    from bench.ci.findings import summarise
    from bench.gating.rule import GateLimits
    from exporter.measuring.gate import GateOptions, gate

    options = GateOptions(
        limits=GateLimits(max_regression=max_regression, max_growth=max_growth),
        shapes=tuple(shapes),
        time_budget_s=time_budget_s,
    )
    result = gate(os.fspath(base), os.fspath(head), options).result
    said = "\n".join([f"stepdown gate: {summarise(result)}", *result.notes])
    if result.exit_code == 7 and skip_inconclusive:
        pytest.skip(said)
    if not result.passes:
        pytest.fail(said, pytrace=False)
    return result
