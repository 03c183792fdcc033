"""Decides how every linear layer is quantised, and says so as plain data; editing the graph is lowering's work.

In: linears, their weights, statistics. Out: :class:`Plan`. Static quantisation: activations by one scale a tensor
(times a smoothing vector), weights by one scale an output channel. numpy only; must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.few_levels import find_levels
from calibration.linears import Linear
from calibration.quantise import FloatArray, make_grid, quantise, quantise_weight
from calibration.search import METHODS, LinearChoice, Options, choose, choose_blindly
from calibration.statistics import CalibrationStatistics, refuse_incomplete
from calibration.tensor_statistics import TensorStatistics
from runtimes.errors import DataError, UnsupportedModel, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationGroup:
    """One activation and the linears (node names) that read it.

    The integer is ``round(x / (smooth * scale)) + zero_point``, saturated to ``dtype`` (of ``bits``); the weights are
    multiplied by ``smooth`` along their input channels. ``error`` is the mean over the linears of the squared output
    error over the output's variance.
    """

    tensor: str
    linears: tuple[str, ...]
    smooth: FloatArray | None
    scale: float
    zero_point: int
    dtype: str
    bits: int
    method: str
    why: str
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearPlan:
    """One linear: symmetric int8 weights with ``weight_scale`` float32 ``[N]``, for the weight times the smoothing.

    ``bias_delta`` float32 ``[N]`` is added to the output; None for no correction.
    """

    node: str
    weight: str
    weight_scale: FloatArray
    weight_zero_point: int
    weight_bits: int
    bias_delta: FloatArray | None
    error: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every decision, in the order of the graph."""

    groups: tuple[ActivationGroup, ...]
    linears: tuple[LinearPlan, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able data; vectors become lists."""
        return {
            "groups": [_to_json(group) for group in self.groups],
            "linears": [_to_json(linear) for linear in self.linears],
        }


def _to_json(entry: ActivationGroup | LinearPlan) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}


def make_static_plan(  # noqa: PLR0913  each is one decision a user can take out of our hands
    linears: Sequence[Linear],
    weights: Mapping[str, FloatArray],
    statistics: CalibrationStatistics,
    *,
    method: str = "auto",
    smooth: bool = True,
    bias_correction: bool = True,
    activation_bits: int = 8,
    weight_bits: int = 8,
    symmetric: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> Plan:
    """Decide how to quantise ``linears``.

    Args:
        linears: What to quantise, in graph order.
        weights: The float weights by initializer name, as stored.
        statistics: Of every activation the linears read, complete.
        method: ``auto`` (the least measured error), ``minmax``, ``percentile``, ``entropy`` or ``mse``.
        smooth: Whether SmoothQuant may be used; never where a weight is shared by layers with other activations, or has
            few levels already.
        bias_correction: Whether outputs are corrected.
        activation_bits: 8, or 7.
        weight_bits: 8, or 7 where sums of two products must fit 16 bits.
        symmetric: int8 activations around zero (TensorRT); otherwise uint8 with a zero point. Weights are symmetric.
        advance: Called with the number of linears decided.

    Raises:
        UsageError: an unknown method.
        DataError: statistics lack a tensor or a shard.
        UnsupportedModel: NaN or Inf in a weight (named).
    """
    if method not in METHODS:
        raise UsageError(f"there is no range method {method!r}", where="--method", cure=f"use {', '.join(METHODS)}")
    refuse_incomplete(statistics)
    options = Options(
        method=method,
        smooth=smooth,
        bias_correction=bias_correction,
        activation_bits=activation_bits,
        weight_bits=weight_bits,
        symmetric=symmetric,
    )
    readers: dict[str, list[Linear]] = {}
    for linear in linears:
        _check(linear, weights, statistics)
        readers.setdefault(linear.activation, []).append(linear)
    # To smooth what has few levels would give it as many as there are inputs.
    fixed = _find_shared(linears) | _find_few_levels(linears, weights)
    groups: list[ActivationGroup] = []
    plans: dict[str, LinearPlan] = {}
    for tensor, group in readers.items():
        free = fixed.isdisjoint(linear.weight for linear in group)
        found, decided = _decide(group, weights, statistics.tensors[tensor], replace(options, smooth=smooth and free))
        groups.append(found)
        plans |= {plan.node: plan for plan in decided}
        advance(len(group))
    return Plan(groups=tuple(groups), linears=tuple(plans[linear.node] for linear in linears))


def choose_groups(smoothed: Plan, plain: Plan, free: Collection[str]) -> Plan:
    """Return ``plain`` with the groups of ``smoothed`` for the activations in ``free``; both plan the same linears."""
    chosen = tuple(
        rich if rich.tensor in free else bare for rich, bare in zip(smoothed.groups, plain.groups, strict=True)
    )
    rich_nodes = {name for group in smoothed.groups if group.tensor in free for name in group.linears}
    linears = tuple(
        rich if rich.node in rich_nodes else bare for rich, bare in zip(smoothed.linears, plain.linears, strict=True)
    )
    return Plan(groups=chosen, linears=linears)


def _find_shared(linears: Sequence[Linear]) -> set[str]:
    """Return the weights that meet more than one activation, as ALBERT's do: a smoothing each would store them anew."""
    activations: dict[str, set[str]] = {}
    for linear in linears:
        activations.setdefault(linear.weight, set()).add(linear.activation)
    return {weight for weight, read in activations.items() if len(read) > 1}


def _find_few_levels(linears: Sequence[Linear], weights: Mapping[str, FloatArray]) -> set[str]:
    """Return the matrices that are few whole numbers times a scale for each output."""
    matrices = {linear.weight: linear for linear in linears if linear.kind != "Conv"}
    rows = {name: weights[name] if linear.transposed else weights[name].T for name, linear in matrices.items()}
    return {name for name, row in rows.items() if find_levels(np.ascontiguousarray(row)) is not None}


def _check(linear: Linear, weights: Mapping[str, FloatArray], statistics: CalibrationStatistics) -> None:
    if linear.activation not in statistics.tensors:
        cure = "calibrate again, for the model that is quantised"
        raise DataError(f"no statistics of {linear.activation!r}", where=linear.node, cure=cure)
    if not np.isfinite(weights[linear.weight]).all():
        cure = "repair the checkpoint"
        raise UnsupportedModel("NaN or Inf in a weight", where=f"{linear.node}:{linear.weight}", cure=cure)


def _decide(
    group: Sequence[Linear], weights: Mapping[str, FloatArray], statistics: TensorStatistics, options: Options
) -> tuple[ActivationGroup, list[LinearPlan]]:
    matrices = [_as_matrix(linear, weights[linear.weight], len(statistics.minimum)) for linear in group]
    known = [matrix for matrix in matrices if matrix is not None]
    # Where a Conv reads it too, the channels of the statistics are those of axis 1, whose rows are none of a product's.
    is_mixed = len({linear.kind == "Conv" for linear in group}) > 1
    if statistics.is_dead() or is_mixed or len(known) < len(group):
        return _decide_blindly(group, weights, statistics, options)
    choice = choose(statistics, known, options)
    why = "least measured output error" if options.method == "auto" else f"--method {options.method}"
    found = ActivationGroup(
        tensor=group[0].activation,
        linears=tuple(linear.node for linear in group),
        smooth=choice.smooth,
        scale=choice.scale,
        zero_point=choice.zero_point,
        dtype=choice.dtype,
        bits=options.activation_bits,
        method=choice.method,
        why=f"{why}: {choice.error():.2e}, plain min-max {choice.plain_error:.2e}",
        error=choice.error(),
    )
    return found, [_plan(linear, part, options, why) for linear, part in zip(group, choice.linears, strict=True)]


def _decide_blindly(
    group: Sequence[Linear], weights: Mapping[str, FloatArray], statistics: TensorStatistics, options: Options
) -> tuple[ActivationGroup, list[LinearPlan]]:
    """Decide where no output can be computed.

    Of a Conv over a window, of a product that reads what a Conv reads, of an activation that was zero throughout.
    """
    chosen, error = choose_blindly(statistics, options)
    scale, zero_point, grid = chosen.fit(options.activation_bits, symmetric=options.symmetric)
    dead = statistics.is_dead()
    why = "the activation was zero throughout" if dead else f"least activation error: {error:.2e}"
    found = ActivationGroup(
        tensor=group[0].activation,
        linears=tuple(linear.node for linear in group),
        smooth=None,
        scale=scale,
        zero_point=zero_point,
        dtype=grid.dtype,
        bits=options.activation_bits,
        method="dead" if dead else chosen.method,
        why=why,
        error=0.0 if dead else error,
    )
    plans = []
    for linear in group:
        weight = weights[linear.weight]
        _, weight_scale, _ = quantise_weight(weight, _output_axis(linear), options.weight_bits)
        part = LinearChoice(weight_scale=weight_scale, bias_delta=None, error=found.error)
        plans.append(_plan(linear, part, options, why))
    return found, plans


def _plan(linear: Linear, part: LinearChoice, options: Options, why: str) -> LinearPlan:
    return LinearPlan(
        node=linear.node,
        weight=linear.weight,
        weight_scale=part.weight_scale,
        weight_zero_point=0,
        weight_bits=options.weight_bits,
        bias_delta=part.bias_delta,
        error=part.error,
        why=f"{why}; output error {part.error:.2e}",
    )


def _output_axis(linear: Linear) -> int:
    return 0 if linear.transposed else 1


def _as_matrix(linear: Linear, weight: FloatArray, channels: int) -> FloatArray | None:
    """Return the weight as ``[K, N]`` where the linear maps a row of ``channels`` to a row of outputs, else None."""
    windowed = linear.kind == "Conv" and (weight.shape[1] != channels or weight[0, 0].size != 1)
    if linear.shape[0] != channels or windowed:
        return None
    flat = weight.reshape(weight.shape[0], -1)
    return np.ascontiguousarray(flat.T) if linear.transposed else flat


def quantise_planned_weight(
    plan: LinearPlan, linear: Linear, weight: FloatArray, smooth: FloatArray | None
) -> NDArray[Any]:
    """Return the integers of a linear's weight, shaped as stored, with its group's smoothing multiplied in."""
    axis = _output_axis(linear)
    if smooth is not None:
        shape = [1] * weight.ndim
        shape[1 - axis] = -1
        weight = weight * smooth.reshape(shape)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return quantise(weight, plan.weight_scale.reshape(shape), 0, make_grid(plan.weight_bits, symmetric=True))
