"""Which nodes of a graph are linear layers with constant weights: what quantisation is about.

In: an ``onnx_ir.Model``. Out: :class:`Linear` descriptions. Needs onnx_ir; must not import a runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A MatMul, Gemm or Conv with constant weights.

    ``shape`` is the weight's logical (K, N): inputs of one output value, and output channels; for Conv K counts one
    group's channels times the kernel. ``transposed`` says that the stored weight is [N, K] (Gemm with transB, and every
    Conv, as [N, C, *kernel]). ``bias`` is the Gemm's or Conv's own constant bias.
    """

    node: str
    kind: str
    activation: str
    weight: str
    shape: tuple[int, int]
    bias: str | None
    transposed: bool


def find_linears(model: ir.Model) -> tuple[Linear, ...]:
    """Return the linear layers of the main graph, in its order.

    A MatMul counts when its second input is a constant 2-D initializer and its first is not constant; a Gemm likewise,
    with alpha and beta 1, transA 0 and a bias that is the same for every row; a Conv when its weight is constant.
    Weights that pass through a Transpose are found after constant folding.
    """
    return tuple(linear for node in model.graph if (linear := _match(node)) is not None)


def find_branch_linears(model: ir.Model) -> tuple[Linear, ...]:
    """Return those of branches and loops, as a gated layer is one, in the order of the file.

    What they read is seen by no calibration: outside of its branch nothing can name it.
    """
    inside = (node for node in model.graph.all_nodes() if node.graph is not model.graph)
    return tuple(linear for node in inside if (linear := _match(node)) is not None)


def _match(node: ir.Node) -> Linear | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.inputs) < 2:
        return None
    activation, weight = node.inputs[0], node.inputs[1]
    if activation is None or weight is None or _is_constant(activation) or not _is_constant(weight):
        return None
    axes = _fixed_shape(weight)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if axes is None or weight.dtype != ir.DataType.FLOAT or not _supported(node, axes, bias):
        return None
    transposed = node.op_type == "Conv" or (node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1)
    outputs = axes[0] if transposed else axes[1]
    count = 1
    for axis in axes:
        count *= axis
    return Linear(
        node=node.name or "",
        kind=node.op_type,
        activation=activation.name or "",
        weight=weight.name or "",
        shape=(count // outputs, outputs),
        bias=bias.name if bias is not None else None,
        transposed=transposed,
    )


def _supported(node: ir.Node, axes: tuple[int, ...], bias: ir.Value | None) -> bool:
    if 0 in axes or (bias is not None and not _is_constant(bias)):
        return False
    if node.op_type == "Conv":
        return len(axes) >= 3
    if node.op_type == "MatMul":
        return len(axes) == 2
    if bias is not None and not _is_row(bias):
        return False
    scales = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    return len(axes) == 2 and scales == [1.0, 1.0] and node.attributes.get_int("transA", 0) == 0


def _is_row(bias: ir.Value) -> bool:
    """Whether a Gemm's bias, which may be ``[M, N]``, is the same for every row: one number, ``[N]`` or ``[1, N]``."""
    return all(axis == 1 for axis in (_fixed_shape(bias) or ())[:-1])


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input()


def _fixed_shape(value: ir.Value) -> tuple[int, ...] | None:
    shape = value.const_value.shape if value.const_value is not None else value.shape
    axes = tuple(shape) if shape is not None else ()
    return tuple(int(axis) for axis in axes) if axes and all(isinstance(axis, int) for axis in axes) else None
