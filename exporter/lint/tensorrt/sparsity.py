"""2:4 sparsity that almost holds, or holds along the wrong axis: sparse kernels take it whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.lint.pairs import as_quantiser, dequantise, find_output_axis, is_sound, name_of
from exporter.lint.rule import Note
from exporter.passes.graph import constant, made_by

GROUP = 4
#: A weight of which this part of the groups fits was meant to fit. A random half of zeros fits in 69 of 100.
MEANT = 0.9


def check(model: ir.Model) -> Iterator[Note]:
    """Yield weights pruned to 2:4 in most groups and not in all, or along the outputs."""
    for node in model.graph.all_nodes():
        nonzero = _find_nonzero(node)
        outputs = find_output_axis(node, 1, nonzero.ndim) if nonzero is not None else None
        if nonzero is None or outputs is None or nonzero.ndim < 2:
            continue
        what = _object(nonzero, nonzero.ndim - 2 if node.op_type == "MatMul" else 1 - outputs, outputs)
        if what is not None:
            yield Note(node=name_of(node), what=what, cure="prune again, along the inputs, and quantise after pruning")


def _find_nonzero(node: ir.Node) -> NDArray[np.bool_] | None:
    """Return where the stored weight, behind a DequantizeLinear or a pair, is not zero."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    found = as_quantiser(value.producer() if value is not None else None)
    if found is not None and (quantise := made_by(found.node.inputs[0], "QuantizeLinear")) is not None:
        found, value = None, quantise.inputs[0]
    stored = constant(value if found is None else found.node.inputs[0])
    if stored is None:
        return None
    floats = dequantise(found, stored) if found is not None and found.has_offset and is_sound(found) else stored
    return np.asarray(floats != 0)


def _object(nonzero: NDArray[np.bool_], reduction: int, outputs: int) -> str | None:
    fitting, groups = _count_fitting(nonzero, reduction)
    length = nonzero.shape[reduction]
    if not groups or nonzero.mean() > 0.6:  # dense, or nearly: it was not meant to be 2:4
        return None
    if fitting == groups and not length % GROUP:
        return None
    if fitting == groups:
        return f"2:4 sparsity holds in all groups, but its {length} inputs are no multiple of {GROUP}"
    if fitting >= MEANT * groups:
        return f"2:4 sparsity is broken in {groups - fitting} of {groups} groups along axis {reduction}"
    other, others = _count_fitting(nonzero, outputs)
    if other == others and not nonzero.shape[outputs] % GROUP:
        return f"2:4 sparsity holds along axis {outputs}, the outputs; the kernels sum along axis {reduction}"
    return None


def _count_fitting(nonzero: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return (groups with at most two values, groups), of whole groups."""
    rows = np.moveaxis(nonzero, axis, -1)
    whole = rows[..., : rows.shape[-1] // GROUP * GROUP]
    counts = whole.reshape(*whole.shape[:-1], -1, GROUP).sum(axis=-1) if whole.size else np.zeros(0)
    return int((counts <= GROUP // 2).sum()), counts.size
