"""The questions all rules ask about QuantizeLinear and DequantizeLinear. Must not import a runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.passes.graph import constant

#: The integers, or FP8 numbers, that a type has, by numpy's and by ONNX's names.
RANGES = {
    "int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767),
    "uint16": (0, 65535), "float8_e4m3fn": (-448, 448), "float8e4m3fn": (-448, 448),
}  # fmt: skip
#: From this operator set on a quantiser may have a scale a channel, and an axis.
FIRST_AXIS = 13
#: Operators with weights.
WEIGHTED = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
#: Move numbers about without changing them: an integer passes through.
MOVES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Split", "Identity", "Gather",
     "DepthToSpace", "SpaceToDepth", "MaxPool"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiser:
    """A QuantizeLinear or DequantizeLinear with its constants; None where they are computed or absent."""

    node: ir.Node
    scale: NDArray[np.generic] | None
    zero: NDArray[np.generic] | None

    @property
    def name(self) -> str:
        """The node's name, or that of what it gives."""
        return name_of(self.node)

    @property
    def is_blocked(self) -> bool:
        """Whether it has a scale for each block of a channel: 4-bit weights."""
        return self.node.attributes.get_int("block_size", 0) != 0

    @property
    def per_channel(self) -> bool:
        """Whether it has a scale for each channel."""
        return self.scale is not None and self.scale.size > 1 and not self.is_blocked

    @property
    def has_offset(self) -> bool:
        """Whether a zero point is not zero."""
        return self.zero is not None and bool(self.zero.astype(np.float32).any())


def name_of(node: ir.Node) -> str:
    """Return a node's name, or what it is and gives where it has none."""
    return node.name or f"{node.op_type} of {node.outputs[0].name}"


def describe(node: ir.Node) -> str:
    """Return what a node is and its name, or what it gives where it has none."""
    return f"{node.op_type} {node.name}" if node.name else name_of(node)


def read_zero(quantiser: Quantiser, scale: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the zero points, as many as there are scales: zeros where none are written."""
    zero = quantiser.zero
    return np.zeros(scale.shape, np.float32) if zero is None else zero.astype(np.float32).reshape(scale.shape)


def dequantise(quantiser: Quantiser, stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the floats that constant integers stand for; the quantiser is sound, and its scales are constant."""
    scale = np.ones(1) if quantiser.scale is None else quantiser.scale
    axis = read_axis(quantiser.node, stored.ndim) if quantiser.per_channel else 0
    steps = stored.astype(np.float32) - spread(read_zero(quantiser, scale), axis, stored.ndim)
    with np.errstate(over="ignore"):
        return steps * spread(scale, axis, stored.ndim)


def are_alike(quantisers: Sequence[Quantiser]) -> bool:
    """Whether all can be computed with, and have the same scales and zero points along the same axis."""
    if not all(map(is_sound, quantisers)):
        return False
    first, *others = [_list_constants(one) for one in quantisers]
    return all(all(np.array_equal(a, b) for a, b in zip(first, other, strict=True)) for other in others)


def _list_constants(quantiser: Quantiser) -> tuple[NDArray[np.float32], ...]:
    scale = np.ones(0) if quantiser.scale is None else quantiser.scale.reshape(-1)
    axis = quantiser.node.attributes.get_int("axis", 1) if quantiser.per_channel else 0
    return scale.astype(np.float32), read_zero(quantiser, scale), np.full((), axis, np.float32)


def list_quantisers(model: ir.Model) -> Iterator[Quantiser]:
    """Yield every QuantizeLinear and DequantizeLinear, those in subgraphs included."""
    for node in list(model.graph.all_nodes()):
        found = as_quantiser(node)
        if found is not None:
            yield found


def as_quantiser(node: ir.Node | None) -> Quantiser | None:
    """Return the node as a quantiser, if it is one."""
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    return Quantiser(node=node, scale=constant(node.inputs[1]), zero=constant(zero))


def is_sound(quantiser: Quantiser) -> bool:
    """Whether its constants can be computed with: what is not sound is reported, and left as it is."""
    scale, node = quantiser.scale, quantiser.node
    if scale is None or not scale.size or quantiser.is_blocked or find_fault(scale) is not None:
        return False
    has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
    if has_zero and (quantiser.zero is None or quantiser.zero.size != scale.size):
        return False
    stored = constant(node.inputs[0])
    if not quantiser.per_channel or stored is None:
        return True
    axis = read_axis(node, stored.ndim)
    return 0 <= axis < stored.ndim and stored.shape[axis] == scale.size


def find_fault(scale: NDArray[np.generic]) -> int | None:
    """Return the index of the first scale that is NaN, infinite, zero or negative."""
    values = scale.astype(np.float64).reshape(-1)
    bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
    return int(bad[0]) if bad.size else None


def read_type(quantiser: Quantiser) -> str:
    """Return the type of the integers, by numpy's or ONNX's name in lower case."""
    if quantiser.zero is not None:
        return quantiser.zero.dtype.name
    node = quantiser.node
    written = node.attributes.get_int("output_dtype", 0)
    if node.op_type == "QuantizeLinear" and written:
        return ir.DataType(written).name.lower()
    integers = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    # Without a zero point ONNX means uint8 in QuantizeLinear.
    return integers.dtype.name.lower() if integers is not None and integers.dtype is not None else "uint8"


def have_one_type(left: ir.Value | None, right: ir.Value | None) -> bool:
    """Whether one may stand for the other; a type that is not known is taken for the same."""
    known = [value.dtype for value in (left, right) if value is not None and value.dtype is not None]
    return len(set(known)) < 2


def is_byte(stored: NDArray[np.generic] | None) -> bool:
    """Whether it is a constant of integers of 8 bits."""
    return stored is not None and stored.dtype in (np.int8, np.uint8)


def find_root(value: ir.Value | None) -> ir.Value | None:
    """Follow a value back through moves and quantisers to what it is made from."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in MOVES | {"QuantizeLinear", "DequantizeLinear", "Cast"}:
            break
        if node.op_type == "Gather" and constant(node.inputs[1]) is None:
            break  # rows of a table, chosen when it runs, are an activation
        value = node.inputs[0]
    return value


def is_weight(node: ir.Node) -> bool:
    """Whether what the quantiser reads is rooted in a constant."""
    return constant(find_root(node.inputs[0])) is not None


def find_quantise(value: ir.Value | None) -> ir.Node | None:
    """Return the QuantizeLinear that integers come from, by moves at most."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "QuantizeLinear":
            return node
        if node.op_type not in MOVES:
            return None
        value = node.inputs[0]
    return None


def ends_in_floats(integers: ir.Value) -> bool:
    """Whether all that is done with integers is moving and dequantising them."""
    if integers.is_graph_output():
        return False
    for use in integers.uses():
        if use.node.op_type in MOVES and use.idx == 0:
            if not all(ends_in_floats(output) for output in use.node.outputs):
                return False
        elif use.node.op_type != "DequantizeLinear":
            return False
    return True


def list_readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield (node, input index) of everything that reads ``value``, through moves."""
    for use in value.uses():
        if use.node.op_type in MOVES and use.idx == 0:
            for output in use.node.outputs:
                yield from list_readers(output)
        else:
            yield use.node, use.idx


def find_output_axis(node: ir.Node, index: int, rank: int) -> int | None:
    """Return the axis of input ``index`` that counts the outputs, or None where it is no weight's place."""
    if index != 1:
        return None
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else 1
        case "MatMul":
            return rank - 1
        case _:
            return None


def read_axis(node: ir.Node, rank: int) -> int:
    """Return the quantiser's axis, counted from the front; ONNX says 1 where none is written."""
    if rank == 1:  # a vector has one axis, whatever is written
        return 0
    axis = node.attributes.get_int("axis", 1)
    return axis + rank if axis < 0 else axis


def spread(scale: NDArray[np.generic], axis: int, rank: int) -> NDArray[np.float32]:
    """Return the scales shaped to multiply a tensor of ``rank``."""
    values = scale.astype(np.float32)
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)
