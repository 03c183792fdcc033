"""Static INT8 plans for any float form of one model, from one calibration.

In: statistics of the traced graph. Out: a plan a graph, made when asked for. Passes keep the names of activations and
merged linears read the same ones, so the statistics of the traced form serve all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from calibration.collect import collect
from calibration.data import Dataset, Shard
from calibration.linears import Linear, find_linears
from calibration.lower.fold_smoothing import list_free
from calibration.magnitudes import list_floats
from calibration.plan import ActivationGroup, LinearPlan, Plan, choose_groups, make_static_plan
from calibration.statistics import CalibrationStatistics, read, refuse_incomplete
from exporter.passes.prepare import prepare
from exporter.passes.untie_weights import open_for_lowering, untie_weights
from runtimes.artifact import Artifact
from runtimes.errors import DataError, UnsupportedModel


class StaticPlans:
    """Plans the linears of ``graph``, smoothed and not, and adapts the plans to its merged form.

    ``symmetric`` gives int8 activations around zero, which is all that TensorRT takes.
    """

    def __init__(
        self,
        *,
        graph: Path,
        statistics: CalibrationStatistics,
        method: str,
        weight_bits: int,
        symmetric: bool = False,
    ) -> None:
        self._graph, self._symmetric = graph, symmetric
        self._statistics, self._method, self._weight_bits = statistics, method, weight_bits
        self._plans: dict[bool, Plan] = {}
        self._lacking: set[str] = set()

    def make_plan(self, graph: Path, *, smoothed: bool) -> Plan:
        """Return the plan for all linears of ``graph``; a lowering takes the ones it needs.

        Smoothing costs a product wherever it cannot be folded into a weight; unless ``smoothed``, only what is free
        is smoothed.
        """
        full = self._plan(graph, smooth=True)
        if smoothed:
            return full
        free = list_free(open_for_lowering(graph), full)
        return choose_groups(full, self._plan(graph, smooth=False), free)

    def _plan(self, graph: Path, *, smooth: bool) -> Plan:
        if smooth not in self._plans:
            linears = self._find_linears(self._graph)
            self._plans[smooth] = self._decide(linears, smooth)
        # Deciding takes seconds, and merged linears are decided by the same activations: once is enough.
        plan = self._plans[smooth]
        return plan if graph == self._graph else merge_plan(plan, self._find_linears(graph))

    def _find_linears(self, graph: Path) -> list[Linear]:
        found = find_linears(open_for_lowering(graph))
        self._lacking |= {linear.activation for linear in found} - set(self._statistics.tensors)
        return [linear for linear in found if linear.activation in self._statistics.tensors]

    def _decide(self, linears: Sequence[Linear], smooth: bool) -> Plan:
        return make_static_plan(
            linears,
            _read_weights(open_for_lowering(self._graph), linears),
            self._statistics,
            method=self._method,
            smooth=smooth,
            weight_bits=self._weight_bits,
            symmetric=self._symmetric,
        )

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
        """Return what was decided for each activation, without the vectors (they are in the model)."""
        names = {True: "smoothed", False: "not smoothed"}
        return {names[smooth]: [_summarise(group) for group in plan.groups] for smooth, plan in self._plans.items()}


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


def merge_plan(plan: Plan, linears: Sequence[Linear]) -> Plan:
    """Return ``plan`` for a graph in which linears over one activation were merged, in the order of the plan.

    Raises:
        UnsupportedModel: the graph's linears are not those of the plan, merged or as they were.
    """
    entries = {entry.node: entry for entry in plan.linears}
    names: dict[str, list[Linear]] = {}
    for linear in linears:
        names.setdefault(linear.activation, []).append(linear)
    groups: list[ActivationGroup] = []
    found: list[LinearPlan] = []
    for group in plan.groups:
        readers = names.get(group.tensor, [])
        gone = [entries[name] for name in group.linears if name not in {linear.node for linear in readers}]
        new = [linear for linear in readers if linear.node not in group.linears]
        if len(new) != (1 if gone else 0):
            cure = "plan this graph anew"
            raise UnsupportedModel("the plan is for another graph", where=group.tensor, cure=cure)
        merged = {linear.node: _merge_entries(linear, gone) for linear in new}
        groups.append(replace(group, linears=tuple(linear.node for linear in readers)))
        found += [merged.get(linear.node) or entries[linear.node] for linear in readers]
    return Plan(groups=tuple(groups), linears=tuple(found))


def _merge_entries(linear: Linear, parts: Sequence[LinearPlan]) -> LinearPlan:
    deltas = [np.zeros_like(p.weight_scale) if p.bias_delta is None else p.bias_delta for p in parts]
    return replace(
        parts[0],
        node=linear.node,
        weight=linear.weight,
        weight_scale=np.concatenate([part.weight_scale for part in parts]),
        bias_delta=np.concatenate(deltas),
        error=float(np.mean([part.error for part in parts])),
    )


def collect_for_plans(
    traced: Path,
    data: Dataset,
    *,
    advance: Callable[[int], None],
    shard: Shard = (0, 1),
    threads: int | None = None,
) -> CalibrationStatistics:
    """Run a traced graph over data and gather what its linears read, and how large every float value gets.

    Raises:
        DataError: the data does not fit the model, or the shard has no batch.
        UnsupportedModel: an activation holds NaN or infinity (named).
    """
    measured = list_floats(traced)
    prepared = ir.load(traced)
    prepare(prepared)
    untie_weights(prepared)
    # A pass may put a name of its own in the place of a value; what the file does not have cannot be observed.
    read = dict.fromkeys(linear.activation for linear in find_linears(prepared))
    activations = [name for name in read if name in set(measured)]
    return collect(traced, data, activations, measured=measured, shard=shard, advance=advance, threads=threads)


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
