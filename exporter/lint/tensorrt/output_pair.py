"""Pairs that stand where they stop fusion: after a weighted operator, or on one side of another operator.

A pair belongs before what computes in int8. After a product it takes a kernel of its own and keeps TensorRT from fusing
product, bias and activation; before an operator without weights it helps only if its output is quantised as well. An
addition of a shortcut may read one quantised operand: NVIDIA's advice for convolutional networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from calibration.lower.edits import remove_dead, take_over
from exporter.lint.moves import is_undone, list_ends, set_type, write_identity
from exporter.lint.pairs import (
    MOVES,
    WEIGHTED,
    are_alike,
    as_quantiser,
    describe,
    have_one_type,
    is_weight,
    list_quantisers,
    list_readers,
    name_of,
)
from exporter.lint.rule import Note
from exporter.lint.saturation import can_hold, hold
from exporter.passes.graph import constant, made_by

_FUSED_AFTER = frozenset({"Add", "BatchNormalization"})
# What stands between a pair and a product without keeping them apart.
_PASSED = MOVES | {"Cast"}
# Operators without weights that have INT8 kernels: those of the parser's table (TensorRT 8.4 was the last that says so)
# and those that ModelOpt quantises by default. Norms, Softmax, GELU's parts and reductions compute in float whatever
# stands around them.
_SYMMETRIC = frozenset({"Add", "Mul", "Concat"})
_INT8 = _SYMMETRIC | {
    "AveragePool", "BatchNormalization", "Clip", "Elu", "GlobalAveragePool", "HardSigmoid", "LeakyRelu", "PRelu",
     "Pad", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh",
}  # fmt: skip
_CURE = "leave this tensor in float for that reader, or quantise its output too"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A QuantizeLinear, the DequantizeLinear that undoes it, and the readers that gain nothing from them.

    ``is_output``: what it gives is an output of the graph, and read by nobody else who gains.
    """

    quantise: ir.Node
    dequantise: ir.Node
    readers: tuple[ir.Node, ...]
    is_output: bool


def check_outputs(model: ir.Model) -> Iterator[Note]:
    """Yield pairs behind a weighted operator that no weighted operator reads."""
    for pair in _list_pairs(model):
        producer = _find_product(pair.quantise.inputs[0])
        if producer is not None:
            readers = ", ".join(sorted({name_of(node) for node in pair.readers})) or "the graph's output"
            yield Note(
                node=name_of(pair.quantise),
                what=f"it quantises the output of {describe(producer)} for {readers}, in float",
                cure="leave outputs in float (ONNX Runtime: OpTypesToExcludeOutputQuantization)",
            )


def check_sides(model: ir.Model) -> Iterator[Note]:
    """Yield pairs before an operator without weights whose output is not quantised, or before no operator at all."""
    for pair in _list_pairs(model):
        if _find_product(pair.quantise.inputs[0]) is not None:
            continue
        for node in pair.readers:
            what = f"{describe(node)} reads int8 and gives float"
            yield Note(node=name_of(pair.dequantise), what=what, cure=_CURE)
        if pair.is_output:
            what = "it rounds an output of the graph, and nothing computes in int8 after it"
            yield Note(node=name_of(pair.dequantise), what=what, cure="leave outputs in float")


def bypass(model: ir.Model) -> int:
    """Let the readers that gain nothing read the float value, held to the pair's range; return how many were passed by.

    Where an operator loses its pair on one side, that on the other side helps no more: again, until nothing is left.
    """
    count = 0
    while found := list(_list_pairs(model)):
        for pair in found:
            quantiser, quantised = as_quantiser(pair.quantise), pair.dequantise.outputs[0]
            source = hold(model, quantiser) if quantiser is not None else None
            for node in pair.readers:
                _read_float(node, quantised, source)
            if pair.is_output and source is not None and not source.is_graph_output():
                take_over(quantised, source)
        remove_dead(model)
        count += len(found)
    return count


def bypass_all(model: ir.Model) -> None:
    """Pass every activation by its pair, held to the same range but unrounded: what the graph means.

    Pairs become identities, moves move floats.
    """
    for quantiser in list(list_quantisers(model)):
        node = quantiser.node
        if node.op_type != "QuantizeLinear" or is_weight(node) or not is_undone(node) or not can_hold(quantiser):
            continue
        ends = list(list_ends(node.outputs[0]))
        if all(have_one_type(node.inputs[0], end.outputs[0]) for end in ends):
            hold(model, quantiser)
            set_type(node.outputs[0], node.inputs[0].type if node.inputs[0] is not None else None)
            for found in (node, *ends):
                write_identity(found)
    remove_dead(model)


def _read_float(node: ir.Node, quantised: ir.Value, source: ir.Value | None) -> None:
    for index, value in enumerate(node.inputs):
        if value is quantised:
            node.replace_input_with(index, source)


def _list_pairs(model: ir.Model) -> Iterator[_Pair]:
    """Yield pairs around an activation with at least one direct reader that gains nothing."""
    for node in list(model.graph.all_nodes()):
        quantise = made_by(node.inputs[0], "QuantizeLinear") if node.op_type == "DequantizeLinear" else None
        if quantise is None or not _is_pair(quantise, node):
            continue
        follows_product = _find_product(quantise.inputs[0]) is not None
        uses = list(node.outputs[0].uses())
        idle = [use.node for use in uses if not _gains(use.node, use.idx, follows_product=follows_product)]
        is_output = len(idle) == len(uses) and _can_end(quantise, node)
        if idle or is_output:
            readers = tuple(dict.fromkeys(idle))
            yield _Pair(quantise=quantise, dequantise=node, readers=readers, is_output=is_output)


def _is_pair(quantise: ir.Node, dequantise: ir.Node) -> bool:
    """Whether a QuantizeLinear of an activation is undone by this DequantizeLinear, and its range can be kept."""
    first, second = as_quantiser(quantise), as_quantiser(dequantise)
    if first is None or second is None or is_weight(quantise) or not can_hold(first):
        return False
    return are_alike((first, second)) and have_one_type(quantise.inputs[0], dequantise.outputs[0])


def _can_end(quantise: ir.Node, dequantise: ir.Node) -> bool:
    """Whether the pair gives an output of the graph that the value before it could be."""
    source = quantise.inputs[0]
    producer = source.producer() if source is not None else None
    is_free = producer is not None and producer.graph is dequantise.graph and not source.is_graph_output()
    return is_free and dequantise.outputs[0].is_graph_output()


def _gains(node: ir.Node, index: int, *, follows_product: bool) -> bool:
    """Whether the reader computes in int8, or hands the integers on to one that does.

    What reads the output of a product is fused into it, unless it is a product itself.
    """
    if node.op_type in _PASSED and index == 0:
        readers = [found for output in node.outputs for found in list_readers(output)]
        return bool(readers) and all(
            _gains(reader, place, follows_product=follows_product) for reader, place in readers
        )
    if node.op_type in WEIGHTED:
        # A product reads two integers or none; its bias is float.
        return index < 2 and all(_is_dequantised(value) for value in node.inputs[:2])
    if node.op_type == "QuantizeLinear":
        return True
    has_sides = not follows_product and node.op_type in _INT8 and _has_both_sides(node)
    return has_sides or (node.op_type == "Add" and _adds_shortcut(node, index))


def _has_both_sides(node: ir.Node) -> bool:
    """Whether all it reads is dequantised, and the only thing done with what it gives is quantising it."""
    given = node.inputs if node.op_type in _SYMMETRIC else node.inputs[:1]
    return all(map(_is_quantised, node.outputs)) and all(_is_dequantised(value) for value in given)


def _is_quantised(value: ir.Value) -> bool:
    """Whether a QuantizeLinear is all that reads it, behind the Clip that its range may have needed."""
    readers = list(list_readers(value))
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type == "Clip" and index == 0 and _is_quantised(reader.outputs[0]))
        for reader, index in readers
    )


def _adds_shortcut(node: ir.Node, index: int) -> bool:
    """Whether the other operand comes from a convolution, unquantised: the addition is fused into it."""
    producer = _find_product(node.inputs[1 - index])
    return producer is not None and producer.op_type in ("Conv", "ConvTranspose")


def _is_dequantised(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "DequantizeLinear":
            return True
        if node.op_type not in _PASSED:
            return False
        value = node.inputs[0]
    return False


def _find_product(value: ir.Value | None) -> ir.Node | None:
    """Return the weighted operator that gives ``value``, its bias or normalisation added."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type in _FUSED_AFTER:
        computed = [given for given in node.inputs if constant(given) is None]
        if len(computed) != 1 or _is_dequantised(computed[0]):
            return None
        node = computed[0].producer() if computed[0] is not None else None
    return node if node is not None and node.op_type in WEIGHTED else None
