"""Static INT8 plans for any float form of one model, from one calibration.

In: statistics of the fused graph. Out: a plan a graph, made when asked for; merged linears read the same activations,
so the statistics serve both forms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from calibration.collect import collect
from calibration.data import Dataset
from calibration.linears import Linear, find_linears
from calibration.plan import ActivationGroup, Plan, make_static_plan
from calibration.statistics import CalibrationStatistics
from exporter.candidates import FloatGraphs
from exporter.fuse import open_for_lowering


class StaticPlans:
    """Makes a plan for the linears of a graph, and keeps it: mixed candidates ask for the same one again."""

    def __init__(self, *, statistics: CalibrationStatistics, method: str, weight_bits: int) -> None:
        self._statistics, self._method, self._weight_bits = statistics, method, weight_bits
        self._plans: dict[Path, Plan] = {}

    def make_plan(self, graph: Path) -> Plan:
        """Return the plan for all linears of ``graph``; a lowering takes the ones it needs."""
        if graph not in self._plans:
            model = open_for_lowering(graph)
            linears = [linear for linear in find_linears(model) if linear.activation in self._statistics.tensors]
            self._plans[graph] = make_static_plan(
                linears,
                _read_weights(model, linears),
                self._statistics,
                method=self._method,
                weight_bits=self._weight_bits,
                symmetric=False,
            )
        return self._plans[graph]

    def to_json(self) -> dict[str, Any]:
        """Return what was decided for each activation, by graph, without the vectors (they are in the model)."""
        return {path.parent.name: [_summarise(group) for group in plan.groups] for path, plan in self._plans.items()}


def _summarise(group: ActivationGroup) -> dict[str, Any]:
    return {
        "tensor": group.tensor,
        "linears": list(group.linears),
        "smoothed": group.smooth is not None,
        "scale": group.scale,
        "zero_point": group.zero_point,
        "dtype": group.dtype,
        "method": group.method,
        "why": group.why,
    }


def collect_for_plans(
    graphs: FloatGraphs, data: Dataset, *, threads: int | None, advance: Callable[[int], None]
) -> CalibrationStatistics:
    """Run the fused graph over the calibration part and gather what its linears read."""
    activations = dict.fromkeys(linear.activation for linear in find_linears(open_for_lowering(graphs.fused)))
    return collect(graphs.fused, data, tuple(activations), advance=advance, threads=threads)


def _read_weights(model: ir.Model, linears: Sequence[Linear]) -> dict[str, Any]:
    return {
        linear.weight: value.const_value.numpy()
        for linear in linears
        if (value := model.graph.initializers.get(linear.weight)) is not None and value.const_value is not None
    }
