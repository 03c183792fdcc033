"""The weights of a decoder in blocks of few bits: MatMulNBits for its linears and its head, its table beside them.

In: a float graph, a plan, and what its linears are fed. Out: the graph edited, and what rounding each matrix changed.
Nodes of functions, attention among them, stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.linears import Linear, find_linears
from calibration.lower.edits import remove_dead
from calibration.lower.onnxruntime.sites import Site, find_sites, require_contrib
from calibration.lower.onnxruntime.weight_only import place_blocks
from calibration.weights.awq import find_scales
from calibration.weights.blocks import BlockFormat, Blocks, FloatArray
from calibration.weights.gptq import Curvature, round_gptq
from calibration.weights.inputs import InputStatistic, InputStatistics
from calibration.weights.plan import WeightPlan
from calibration.weights.rtn import round_to_nearest
from calibration.weights.smoothing import find_smoothing, measure_rounding, sample_rows
from exporter.passes.block_tables import find_tables, place_table, read_table
from exporter.passes.graph import constant, made_by
from exporter.passes.scale_inputs import scale_inputs
from exporter.passes.untie_weights import untie_weights
from runtimes.errors import UsageError
from runtimes.generation.cache_spec import LOGITS

# Rows of each matrix, evenly spaced, that tell what rounding it changed.
_MEASURED_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """One matrix: the node that reads it, how it is stored, and what rounding changed.

    ``error`` is the root mean square of the change at its outputs over that of the outputs, for the inputs that were
    measured; without statistics, for inputs that are independent and all alike.
    """

    node: str
    format: BlockFormat
    error: float


def list_inputs(model: ir.Model) -> tuple[str, ...]:
    """Return the tensors whose statistics :func:`quantise_decoder` asks for."""
    names = [linear.activation for linear in find_linears(model)]
    # The head, where its weight is the table turned.
    for node in model.graph:
        turned = made_by(node.inputs[1], "Transpose") if node.op_type == "MatMul" else None
        if turned is not None and constant(turned.inputs[0]) is not None and node.inputs[0] is not None:
            names.append(node.inputs[0].name or "")
    return tuple(dict.fromkeys(names))


def quantise_decoder(
    model: ir.Model, plan: WeightPlan, statistics: InputStatistics | None = None
) -> tuple[Rounded, ...]:
    """Edit ``model`` in place.

    Args:
        model: A float graph of a decoder.
        plan: The form of each matrix, and how it is rounded.
        statistics: What its linears are fed (:func:`list_inputs`), where the plan needs it.

    Raises:
        UsageError: the plan needs statistics and there are none.
        DataError: the statistics lack an input.
    """
    if plan.needs_statistics and statistics is None:
        cure = "give calibration data, or take rtn"
        raise UsageError(f"{plan.method} looks at what the linears are fed", where="method", cure=cure)
    require_contrib(model)
    if plan.tables is not None:
        untie_weights(model)
    groups, heads = _group_linears(model), _find_heads(model)
    scales: Mapping[str, FloatArray] = {}
    if plan.method == "awq" and statistics is not None:
        # A head that is scaled is no longer the table.
        scaled = {name: linears for name, linears in groups.items() if all(it.node not in heads for it in linears)}
        scales = scale_inputs(model, scaled, partial(_find_awq, plan, statistics))
    found: list[Rounded] = []
    for name, linears in groups.items():
        statistic = statistics.load(name) if statistics is not None else None
        if statistic is not None and name in scales:
            statistic = statistic.divide(scales[name])
        rounder = _Rounder.prepare(plan, statistic)
        for site in find_sites(model, linears):
            if site.linear.node in heads:
                found += _place_head(model, plan, site, heads[site.linear.node], rounder)
            elif (layout := plan.find_format(site.linear.node)) is not None:
                found.append(_place_linear(model, plan, site, layout, rounder))
    remove_dead(model)
    found += _place_tables(model, plan, find_tables(model))
    remove_dead(model)
    return tuple(found)


def smooth_decoder(model: ir.Model, statistics: InputStatistics, left: Collection[str]) -> Mapping[str, float]:
    """Edit ``model`` in place: what is fed to its linears is easier to round to int8 with a scale a token.

    Args:
        model: A float graph of a decoder.
        statistics: What its linears are fed (:func:`list_inputs`).
        left: Linears, by the name of their node, that will not be rounded so; what they read stays as it is, and so
            does what a head reads.

    Returns:
        By linear: what rounding still changes at the outputs of all that read the same, as a share of their mean
        square.

    Raises:
        DataError: the statistics lack an input.
    """
    stay = {*left, *_find_heads(model)}
    groups = {name: ones for name, ones in _group_linears(model).items() if all(it.node not in stay for it in ones)}
    rows = {name: [sample_rows(site.weight.T) for site in find_sites(model, ones)] for name, ones in groups.items()}

    def find(name: str, found: Sequence[tuple[Linear, FloatArray]], channels: NDArray[np.int64]) -> FloatArray:
        return find_smoothing([array for _, array in found], statistics.load(name), channels)

    scales = scale_inputs(model, groups, find)
    errors: dict[str, float] = {}
    for name, ones in groups.items():
        own = scales.get(name, np.ones(ones[0].shape[0], np.float32))
        error = measure_rounding(rows[name], statistics.load(name).tokens, own)
        errors |= dict.fromkeys((linear.node for linear in ones), error)
    return errors


def _find_awq(
    plan: WeightPlan,
    statistics: InputStatistics,
    name: str,
    rows: Sequence[tuple[Linear, FloatArray]],
    channels: NDArray[np.int64],
) -> FloatArray:
    stored = [(array, layout) for linear, array in rows if (layout := plan.find_format(linear.node)) is not None]
    return find_scales(stored, statistics.load(name), channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounder:
    """Rounds the matrices that read one input."""

    statistic: InputStatistic | None
    importance: FloatArray | None
    curvature: Curvature | None

    @classmethod
    def prepare(cls, plan: WeightPlan, statistic: InputStatistic | None) -> Self:
        if statistic is None or plan.method == "rtn":
            return cls(statistic=statistic, importance=None, curvature=None)
        if plan.method == "awq":
            return cls(statistic=statistic, importance=statistic.power, curvature=None)
        curvature = Curvature.prepare(statistic.gram, ordered=plan.ordered, damping=plan.damping)
        return cls(statistic=statistic, importance=statistic.power, curvature=curvature)

    def round(self, rows: FloatArray, layout: BlockFormat) -> Blocks:
        if self.curvature is not None:
            return round_gptq(rows, layout, self.curvature)
        return self.round_to_nearest(rows, layout)

    def round_to_nearest(self, rows: FloatArray, layout: BlockFormat) -> Blocks:
        return round_to_nearest(rows, layout, self.importance)

    def describe(self, node: str, rows: FloatArray, blocks: Blocks) -> Rounded:
        every = max(1, len(rows) // _MEASURED_ROWS)
        off, rows = blocks.spell_out()[::every] - rows[::every], rows[::every]
        whole = _measure(rows, self.statistic)
        error = math.sqrt(_measure(off, self.statistic) / whole) if whole > 0 else 0.0
        return Rounded(node=node, format=blocks.format, error=error)


def _group_linears(model: ir.Model) -> dict[str, list[Linear]]:
    groups: dict[str, list[Linear]] = {}
    for linear in find_linears(model):
        if linear.kind != "Conv":
            groups.setdefault(linear.activation, []).append(linear)
    return groups


def _find_heads(model: ir.Model) -> Mapping[str, Sequence[ir.Node]]:
    """Return the linears that give the logits, or are a table turned, and the look-ups in the same matrix."""
    tables = find_tables(model)
    nodes = {node.name: node for node in model.graph}
    heads: dict[str, Sequence[ir.Node]] = {}
    for linear in find_linears(model):
        node = nodes[linear.node]
        tied = [table for table in tables if _is_turned(node.inputs[1], linear, table)]
        behind = [node, *(use.node for use in node.outputs[0].uses() if use.node.op_type == "Add")]
        if tied or any(one.outputs[0].name == LOGITS for one in behind):
            heads[linear.node] = tied
    return heads


def _is_turned(weight: ir.Value | None, linear: Linear, table: ir.Node) -> bool:
    """Whether a linear multiplies with the rows of a table."""
    looked_up = table.inputs[0]
    if looked_up is None or looked_up.const_value is None or looked_up.const_value.shape != linear.shape[::-1]:
        return False
    array = np.asarray(constant(weight))
    return np.array_equal(read_table(table), array if linear.transposed else array.T)


def _place_linear(model: ir.Model, plan: WeightPlan, site: Site, layout: BlockFormat, rounder: _Rounder) -> Rounded:
    rows = np.ascontiguousarray(site.weight.T)
    blocks = rounder.round(rows, layout)
    place_blocks(model, site, blocks, accuracy=plan.accuracy)
    return rounder.describe(site.linear.node, rows, blocks)


def _place_head(
    model: ir.Model, plan: WeightPlan, site: Site, tied: Sequence[ir.Node], rounder: _Rounder
) -> tuple[Rounded, ...]:
    """Round the head; look-ups in the same matrix read its blocks, where each weight is rounded by itself."""
    if plan.tables is None or plan.others.get(site.linear.node, plan.tables) is None:
        return ()
    rows = np.ascontiguousarray(site.weight.T)
    blocks = rounder.round_to_nearest(rows, plan.tables) if tied else rounder.round(rows, plan.tables)
    for table in tied:
        place_table(model, table, site.linear.weight, blocks)
    place_blocks(model, site, blocks, accuracy=plan.accuracy)
    return (rounder.describe(site.linear.node, rows, blocks),)


def _place_tables(model: ir.Model, plan: WeightPlan, tables: Sequence[ir.Node]) -> tuple[Rounded, ...]:
    """Round the tables that are no head."""
    if plan.tables is None:
        return ()
    rounder = _Rounder(statistic=None, importance=None, curvature=None)
    found = []
    for node in tables:
        rows = read_table(node)
        blocks = rounder.round(rows, plan.tables)
        place_table(model, node, str(node.inputs[0].name), blocks)
        found.append(rounder.describe(node.name, rows, blocks))
    return tuple(found)


def _measure(rows: FloatArray, statistic: InputStatistic | None) -> float:
    """Return the mean square of products with the inputs, summed over the rows."""
    return float(np.vdot(rows, rows if statistic is None else rows @ statistic.gram))
