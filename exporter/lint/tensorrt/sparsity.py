"""2:4 sparsity that almost holds, or holds along the wrong axis: sparse kernels take it whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.lint.pairs import find_output_axis, name_of
from exporter.lint.rule import Note
from exporter.passes.graph import constant, made_by

GROUP = 4
#: A weight of which this part of the groups fits was meant to fit. A random half of zeros fits in 69 of 100.
MEANT = 0.9


def check(model: ir.Model) -> Iterator[Note]:
    """Yield weights pruned to 2:4 in most groups and not in all, or along the outputs."""
    for node in model.graph.all_nodes():
        stored = _read_weight(node)
        axis = find_output_axis(node, 1, stored.ndim) if stored is not None else None
        if stored is None or axis is None or stored.ndim < 2:
            continue
        nonzero = np.asarray(stored != 0)
        what = _object(nonzero, _find_reduction(node, stored.ndim, axis), axis)
        if what is not None:
            yield Note(node=name_of(node), what=what, cure="prune again, along the inputs, and quantise after pruning")


def _read_weight(node: ir.Node) -> NDArray[np.generic] | None:
    """Return the stored weight, behind a DequantizeLinear or a pair."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    while value is not None and (quantiser := made_by(value, "DequantizeLinear", "QuantizeLinear")) is not None:
        value = quantiser.inputs[0]
    return constant(value)


def _find_reduction(node: ir.Node, rank: int, outputs: int) -> int:
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1 - outputs
    return rank - 2 if node.op_type == "MatMul" else 1 - outputs


def _object(nonzero: NDArray[np.bool_], reduction: int, outputs: int) -> str | None:
    if nonzero.mean() > 0.6:  # dense, or nearly: it was not meant to be 2:4
        return None
    right = _count_fitting(nonzero, reduction)
    if right is None:
        return f"half of it is zero, but {nonzero.shape[reduction]} inputs are no multiple of {GROUP}"
    fitting, groups = right
    if fitting == groups:
        return None
    if fitting >= MEANT * groups:
        return f"2:4 sparsity is broken in {groups - fitting} of {groups} groups along axis {reduction}"
    other = _count_fitting(nonzero, outputs)
    if other is not None and other[0] == other[1]:
        return f"2:4 sparsity holds along axis {outputs}, the outputs; the kernels sum along axis {reduction}"
    return None


def _count_fitting(nonzero: NDArray[np.bool_], axis: int) -> tuple[int, int] | None:
    """Return (groups with at most two values, groups), or None where the axis does not divide."""
    if nonzero.shape[axis] % GROUP:
        return None
    rows = np.moveaxis(nonzero, axis, -1)
    counts = rows.reshape(-1, rows.shape[-1] // GROUP, GROUP).sum(axis=2)
    return int((counts <= GROUP // 2).sum()), counts.size
