"""Where a linear sits in the graph: its node, the bias added after it, and how to put something else there.

In: a model and :class:`calibration.linears.Linear` descriptions. Out: sites. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.linears import Linear
from calibration.lower.edits import take_over
from runtimes.errors import UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """``output = activation @ weight + bias``: ``weight`` float32 [K, N], ``bias`` float32 [N] or None."""

    linear: Linear
    node: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    output: ir.Value

    @property
    def activation(self) -> ir.Value:
        """What the linear reads now: a linear before it may have been replaced since the site was found."""
        value = self.node.inputs[0]
        if value is None:
            raise UnsupportedModel("the linear reads nothing", where=self.linear.node, cure="plan it again")
        return value


def find_sites(model: ir.Model, linears: Sequence[Linear]) -> tuple[Site, ...]:
    """Return the site of each MatMul or Gemm among ``linears``, in their order; convolutions are left out.

    A linear may lie in a branch.

    Raises:
        UnsupportedModel: a node is not in the graph.
    """
    nodes = {node.name: node for node in model.graph.all_nodes()}
    sites = []
    for linear in linears:
        if linear.kind == "Conv":
            continue
        node = nodes.get(linear.node)
        if node is None:
            raise UnsupportedModel("the plan names a node the graph lacks", where=linear.node, cure="plan it again")
        sites.append(_locate(linear, node))
    return tuple(sites)


def replace_site(site: Site, new: Sequence[ir.Node]) -> None:
    """Insert ``new`` before the linear and let its last node give the output; dead nodes are left to the caller."""
    graph, output = site.node.graph, new[-1].outputs[0]
    if graph is None:
        raise UnsupportedModel("the node is not part of a graph", where=site.linear.node, cure="load the model again")
    graph.insert_before(site.node, new)
    take_over(site.output, output)


def require_contrib(model: ir.Model) -> None:
    """Declare ONNX Runtime's own operator set, whose kernels the integer graphs use."""
    model.graph.opset_imports.setdefault("com.microsoft", 1)


def _locate(linear: Linear, node: ir.Node) -> Site:
    stored = node.inputs[1]
    if stored is None or stored.const_value is None:
        raise UnsupportedModel("the linear has no constant weight", where=linear.node, cure="leave it in float")
    weight = stored.const_value.numpy()
    if linear.transposed:
        weight = weight.T
    bias, output = _find_bias(linear, node)
    return Site(linear=linear, node=node, weight=np.ascontiguousarray(weight), bias=bias, output=output)


def _find_bias(linear: Linear, node: ir.Node) -> tuple[NDArray[np.float32] | None, ir.Value]:
    """Return the bias (the node's own, or that of the one Add after it) and the value that holds the sum."""
    output = node.outputs[0]
    if len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].const_value is not None:
        own = node.inputs[2].const_value.numpy()
        return np.broadcast_to(own.reshape(-1), (linear.shape[1],)).copy(), output
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.op_type != "Add":
        return None, output
    add = uses[0].node
    # What a branch of an If adds, nothing outside the branch can give.
    if add.graph is not node.graph:
        return None, output
    other = add.inputs[1 - uses[0].idx]
    if other is None or other.const_value is None or other.is_graph_input():
        return None, output
    constant = other.const_value.numpy()
    if constant.shape != (linear.shape[1],):
        return None, output
    return constant, add.outputs[0]
