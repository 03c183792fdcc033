"""Static INT8 plans for any float form of one model, from one calibration.

In: statistics of the fused graph, or of the traced one. Out: a plan a graph, made when asked for. Passes keep the names
of activations and merged linears read the same ones, so the statistics of one form serve all.
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
from calibration.statistics import CalibrationStatistics, read, refuse_incomplete
from exporter.candidates import FloatGraphs
from exporter.fuse import open_for_lowering
from runtimes.artifact import Artifact
from runtimes.errors import DataError


class StaticPlans:
    """Makes a plan for the linears of a graph, and keeps it: mixed candidates ask for the same one again."""

    def __init__(self, *, statistics: CalibrationStatistics, method: str, weight_bits: int) -> None:
        self._statistics, self._method, self._weight_bits = statistics, method, weight_bits
        self._plans: dict[Path, Plan] = {}
        self._lacking: set[str] = set()

    def make_plan(self, graph: Path) -> Plan:
        """Return the plan for all linears of ``graph``; a lowering takes the ones it needs."""
        if graph not in self._plans:
            model = open_for_lowering(graph)
            found = find_linears(model)
            linears = [linear for linear in found if linear.activation in self._statistics.tensors]
            self._lacking |= {linear.activation for linear in found} - set(self._statistics.tensors)
            self._plans[graph] = make_static_plan(
                linears,
                _read_weights(model, linears),
                self._statistics,
                method=self._method,
                weight_bits=self._weight_bits,
                symmetric=False,
            )
        return self._plans[graph]

    def list_findings(self) -> tuple[str, ...]:
        """Return a sentence where linears of the graphs planned so far read what the statistics do not hold."""
        if not self._lacking:
            return ()
        names = ", ".join(sorted(self._lacking))
        return (f"the statistics lack what some linears read, which get no static INT8: {names}",)

    def describe_statistics(self) -> dict[str, Any]:
        """Return where the statistics come from."""
        return {"samples": self._statistics.samples, "dataset_sha256": self._statistics.dataset_sha256}

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


def read_complete(path: Path) -> CalibrationStatistics:
    """Read the statistics of a whole run.

    Raises:
        DataError: there is no such file, or shards are missing (named).
        CorruptArtifact: it is damaged, or a file of another kind.
    """
    statistics = read(path)
    try:
        refuse_incomplete(statistics)
    except DataError as error:
        raise DataError(error.what, where=str(path), cure=error.cure) from error
    return statistics


def require_statistics_of(statistics: CalibrationStatistics, traced: Artifact, *, where: str) -> None:
    """Raise DataError, naming both models, where the statistics were not collected on ``traced``.

    Tracing gives the same bytes for the same model, task, opset and versions of torch and transformers, so the sha256
    of the traced file says which model it is.
    """
    if statistics.model_sha256 != traced.sha256:
        raise DataError(
            f"the statistics are of the traced model {statistics.model_sha256[:16]}, this one is {traced.sha256[:16]}",
            where=where,
            cure="calibrate this model, with the same --task and --opset and the same versions of its packages",
        )


def _read_weights(model: ir.Model, linears: Sequence[Linear]) -> dict[str, Any]:
    return {
        linear.weight: value.const_value.numpy()
        for linear in linears
        if (value := model.graph.initializers.get(linear.weight)) is not None and value.const_value is not None
    }
