"""What follows a sparse operator in a transformer goes into it: the residual addition and the LayerNormalization.

In: a model after exporter/passes/sparse_linears.py. Out: the same model, and fewer nodes. The sum may be an ``Add`` or
the ``Sum`` that separate_norm made of it. ONNX Runtime passes over the activations three times for what is one pass
while they are still in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.passes.graph import constant, only_user
from exporter.passes.sparse_linears import is_sparse


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSite:
    """A LayerNormalization over the last axis of the sum of a linear's output and a residual."""

    node: ir.Node
    residual: ir.Value
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    epsilon: float

    @property
    def output(self) -> ir.Value:
        """The normalised tokens."""
        return self.node.outputs[0]


def fold_norms(model: ir.Model) -> int:
    """Fold what follows each sparse operator of ``model`` into it; return how many."""
    folded = 0
    for node in list(model.graph):
        site = find_norm(node.outputs[0]) if is_sparse(node) and "epsilon" not in node.attributes else None
        if site is not None:
            _fold(model.graph, node, site)
            folded += 1
    if folded:
        remove_dead(model)
    return folded


def find_norm(output: ir.Value) -> NormSite | None:
    """Return what follows the output of a linear, where a sparse operator can do it; None where it cannot.

    It cannot where anything else reads the output or the sum, where the residual may be of another shape, and where
    the norm is over more than the last axis, not in float32 throughout or not finite.
    """
    total = only_user(output, "Add", "Sum")
    norm = only_user(total.outputs[0], "LayerNormalization") if total is not None and len(total.inputs) == 2 else None
    if total is None or norm is None or norm.inputs[0] is not total.outputs[0]:
        return None
    residual = total.inputs[1] if total.inputs[0] is output else total.inputs[0]
    if residual is None or not _is_alike(residual, output) or not _is_last_axis(norm, output):
        return None
    if any(extra.uses() or extra.is_graph_output() for extra in norm.outputs[1:]):
        return None
    scale, bias = _read(norm, 1, output), _read(norm, 2, output)
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    if scale is None or bias is None or not 0 < np.float32(epsilon) < np.inf:
        return None
    return NormSite(node=norm, residual=residual, scale=scale, bias=bias, epsilon=epsilon)


def _is_alike(residual: ir.Value, output: ir.Value) -> bool:
    """Whether both are float32 of one shape, as far as names of axes tell; a constant would be no residual."""
    shapes = (residual.shape, output.shape)
    known = all(shape is not None and all(_is_named(axis) for axis in shape) for shape in shapes)
    floats = residual.dtype == output.dtype == ir.DataType.FLOAT
    return known and floats and shapes[0] == shapes[1] and constant(residual) is None


def _is_named(axis: int | ir.SymbolicDim) -> bool:
    return isinstance(axis, int) or axis.value is not None


def _is_last_axis(norm: ir.Node, output: ir.Value) -> bool:
    assert output.shape is not None, "compared with the residual's"
    axis = norm.attributes.get_int("axis", -1)
    return axis in (-1, len(output.shape) - 1) and norm.attributes.get_int("stash_type", 1) == 1


def _read(norm: ir.Node, index: int, output: ir.Value) -> NDArray[np.float32] | None:
    """Return the scale or the bias of a norm, zeros for a bias that is left out; None where it is no such vector."""
    assert output.shape is not None, "compared with the residual's"
    width = output.shape[-1]
    if index == 2 and (len(norm.inputs) < 3 or norm.inputs[2] is None):
        return np.zeros(width, np.float32) if isinstance(width, int) else None
    array = constant(norm.inputs[index])
    if array is None or array.dtype != np.float32 or array.shape != (width,) or not np.isfinite(array).all():
        return None
    return array.astype(np.float32)


def _fold(graph: ir.Graph, node: ir.Node, site: NormSite) -> None:
    name = site.node.name or node.name
    inputs = [
        *node.inputs,
        site.residual,
        add_constant(graph, f"{name}_norm_scale", site.scale),
        add_constant(graph, f"{name}_norm_bias", site.bias),
    ]
    attributes = [*node.attributes.values(), ir.AttrFloat32("epsilon", site.epsilon)]
    folded = ir.Node(node.domain, node.op_type, inputs, attributes, name=node.name)
    # The residual may be computed after the linear: the norm's place has both before it.
    graph.insert_before(site.node, folded)
    take_over(site.output, folded.outputs[0])
