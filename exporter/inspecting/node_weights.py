"""The stored matrices of an ONNX graph, node by node: where each is zero, whatever it is stored in.

In: a node. Out: its weights, as outputs by inputs. Must not import a runtime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.inspecting.blockwise_weights import is_packed, unpack_weight
from exporter.passes.graph import constant
from exporter.passes.packed_weights import read_packed, unpacks
from exporter.passes.sparse_linears import is_sparse, read_stored
from exporter.weights.found_weight import FoundWeight, is_weight
from runtimes.sparse.storage import decode

# Weights in blocks, packed in ways that are not read here (ContribOperators.md): the input that holds them.
_UNREAD = {"MatMulBnb4": 1, "GatherBlockQuantized": 0}
# Operators of integers: the inputs that hold their weight and its zero point.
_ZERO_POINTS = {
    "MatMulInteger": (1, 3), "ConvInteger": (1, 3), "DynamicQuantizeMatMul": (1, 3), "MatMulIntegerToFloat": (1, 5),
    "QLinearMatMul": (3, 5), "QLinearConv": (3, 5), "QGemm": (3, 5),
}  # fmt: skip


def list_weights(node: ir.Node) -> tuple[FoundWeight, ...]:
    """Return the stored matrices that a node multiplies with or looks up.

    Raises:
        CorruptArtifact: one of our own sparse operators is damaged.
    """
    if node.op_type in {"DequantizeLinear", "QuantizeLinear"} or unpacks(node):
        return ()
    if is_sparse(node):
        return (_read_sparse(node),)
    if is_packed(node) or node.op_type in _UNREAD:
        return _read_packed(node)
    found = (
        _read_levels(node, place) or _read_plain(node, place, value)
        for place, value in enumerate(node.inputs)
        if value is not None
    )
    return tuple(weight for weight in found if weight is not None)


def _read_sparse(node: ir.Node) -> FoundWeight:
    stored = read_stored(node)
    return FoundWeight(
        name=node.name or node.op_type,
        op=node.op_type,
        shape=stored.shape,
        dtype=stored.values.dtype.name,
        nonzero=decode(stored) != 0,
    )


def _read_packed(node: ir.Node) -> tuple[FoundWeight, ...]:
    """Return a weight that is packed in blocks, in the size that the attributes tell."""
    place = _UNREAD.get(node.op_type, 1)
    value = node.inputs[place] if len(node.inputs) > place else None
    if value is None or value.const_value is None:
        return ()
    stored, weight = value.const_value, unpack_weight(node) if is_packed(node) else None
    told = tuple(node.attributes.get_int(name, 0) for name in ("N", "K"))
    bits = node.attributes.get_int("bits", 4)
    return (
        FoundWeight(
            name=node.name or node.op_type,
            op=node.op_type,
            shape=told if min(told) > 0 else tuple(stored.numpy().shape),
            dtype=f"uint{bits}" if is_packed(node) else stored.dtype.name.lower(),
            nonzero=weight != 0 if weight is not None else None,
        ),
    )


def _read_levels(node: ir.Node, place: int) -> FoundWeight | None:
    """Return what an input holds where that is a weight of few levels, which our own functions unpack."""
    packed = read_packed(node, place)
    if packed is None:
        return None
    array, bits = packed
    return FoundWeight(
        name=node.name or node.op_type,
        op=node.op_type,
        shape=tuple(array.shape),
        dtype=f"int{bits}",
        nonzero=_orient(np.asarray(array != 0), node, place),
    )


def _read_plain(node: ir.Node, place: int, value: ir.Value) -> FoundWeight | None:
    """Return what an input holds, as it is or behind a DequantizeLinear, if it is a weight."""
    producer = value.producer()
    source = value if producer is None else producer.inputs[0]
    if source is None or (producer is not None and producer.op_type != "DequantizeLinear"):
        return None
    stored = source.const_value
    if stored is None or not is_weight(tuple(stored.shape), stored.dtype.name):
        return None
    array = stored.numpy()
    zero = _read_zero(node if producer is None else producer, place, array.shape)
    nonzero = np.asarray(array.astype(np.float32) != zero) if zero is not None else None
    return FoundWeight(
        name=node.name or value.name or node.op_type,
        op=node.op_type,
        shape=tuple(array.shape),
        dtype=stored.dtype.name.lower(),
        nonzero=_orient(nonzero, node, place) if nonzero is not None else None,
    )


def _read_zero(reader: ir.Node, place: int, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return the values that stand for zero in a weight of this shape, to compare with it; None where they do not fit.

    ``reader`` converts the weight, or multiplies with it as its input number ``place``.
    """
    at, axis, block = 2, reader.attributes.get_int("axis", 1), reader.attributes.get_int("block_size", 0)
    if reader.op_type != "DequantizeLinear":
        weight, at = _ZERO_POINTS.get(reader.op_type, (place, len(reader.inputs)))
        axis, at = 0 if "Conv" in reader.op_type else -1, at if weight == place else len(reader.inputs)
    zero = constant(reader.inputs[at]) if at < len(reader.inputs) else None
    if zero is None:
        return np.zeros(1, np.float32)
    points = zero.astype(np.float32)
    if points.size == 1:
        return points.reshape(1)
    if not -len(shape) <= axis < len(shape):
        return None
    if block > 0 and points.ndim == len(shape):
        points = np.repeat(points, block, axis=axis)[tuple(map(slice, shape))]
    elif points.size == shape[axis]:
        return points.reshape([-1 if number == axis % len(shape) else 1 for number in range(len(shape))])
    return points if points.shape == shape else None


def _orient(nonzero: NDArray[np.bool_], node: ir.Node, place: int) -> NDArray[np.bool_]:
    """Return a matrix as (outputs, inputs), which is how the left factor of a product lies and the right one not."""
    if node.op_type == "Conv":
        return nonzero
    if "MatMul" not in node.op_type and "Gemm" not in node.op_type:
        return nonzero.reshape(nonzero.shape[0], -1)
    matrix = nonzero.reshape(-1, nonzero.shape[-1])
    is_left = place == 0
    is_turned = bool(node.attributes.get_int("transA" if is_left else "transB", 0))
    return matrix if is_left != is_turned else matrix.T
