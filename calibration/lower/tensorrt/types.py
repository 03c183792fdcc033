"""FP16 or BF16 through types in the graph, which is how a strongly typed network says its precision.

Every float32 value becomes the narrow type, except where an operator does not take it or a node is kept in FP32; a Cast
stands where the two meet. Inputs and outputs of the graph keep their types, but for those that are asked for, so that
whoever runs the model sees no difference. QuantizeLinear goes with what it reads and DequantizeLinear with what reads
it: a Cast between DequantizeLinear and a product would keep TensorRT from fusing them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant
from calibration.lower.tensorrt.overflow import fit_constant
from calibration.lower.tensorrt.schema import SETS_TYPE, Formals, read_formals
from runtimes.errors import UnsupportedModel

#: QuantizeLinear and DequantizeLinear take FP16 and BF16 scales from here.
FIRST_OPSET = 19
_FLOAT = ir.DataType.FLOAT


def set_types(
    model: ir.Model, kind: ir.DataType, kept: Mapping[ir.Node, str], narrow_ends: Container[str] = ()
) -> dict[ir.Node, str]:
    """Edit ``model`` in place; return the nodes that stay in FP32 with the reason: ``kept`` and what cannot change.

    Args:
        model: float32; the type of every value known.
        kind: FLOAT16 or BFLOAT16.
        kept: Nodes to leave in FP32.
        narrow_ends: Names of inputs and outputs of the graph that get the narrow type too.

    Raises:
        UnsupportedModel: the operator set is too old, or the type of a value is not known (named).
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset < FIRST_OPSET:
        what = f"opset {opset} has no {kind.name} scales"
        raise UnsupportedModel(what, cure=f"convert the model to opset {FIRST_OPSET} or later")
    wide = {**kept, **_find_fixed(model, opset, kind, kept)}
    _split_dequantisers(model, wide)
    wide_pairs = _place_pairs(model, wide)
    narrow: dict[ir.Node, Formals] = {}
    for node in model.graph:
        formals = read_formals(node.op_type, opset, kind) if node.domain == "" else None
        if node not in wide and node not in wide_pairs and formals is not None:
            narrow[node] = formals
    _convert_constants(model.graph, narrow, kind)
    _set_attributes(narrow, kind)
    _set_values(model.graph, narrow, kind, narrow_ends)
    return wide


def _find_fixed(model: ir.Model, opset: int, kind: ir.DataType, kept: Mapping[ir.Node, str]) -> dict[ir.Node, str]:
    """Return the nodes that compute in float32 and must go on doing so."""
    found: dict[ir.Node, str] = {}
    for node in model.graph:
        _require_types(node)
        if node in kept or not any(_is_float(value) for value in (*node.inputs, *node.outputs)):
            continue
        if node.domain != "" or read_formals(node.op_type, opset, kind) is None:
            found[node] = f"{node.domain or 'ai.onnx'}::{node.op_type} is not an operator of ONNX"
        elif any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _own(node)):
            found[node] = "it holds a graph of its own"
        elif not _takes_any(node, opset, kind):
            found[node] = f"{node.op_type} takes no {kind.name}"
    return found


def _takes_any(node: ir.Node, opset: int, kind: ir.DataType) -> bool:
    formals = read_formals(node.op_type, opset, kind)
    if formals is None:
        return False
    takes = any(_is_float(value) and formals.takes(index) for index, value in enumerate(node.inputs))
    return takes or node.op_type in SETS_TYPE or not any(_is_float(value) for value in node.inputs)


def _split_dequantisers(model: ir.Model, wide: Mapping[ir.Node, str]) -> None:
    """Give the kept readers of a DequantizeLinear one of their own where others are not kept."""
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear" or node in wide:
            continue
        output = node.outputs[0]
        uses = list(output.uses())
        stay = [use for use in uses if use.node in wide]
        if not stay or len(stay) == len(uses):
            continue
        twin = ir.node("DequantizeLinear", list(node.inputs), _axis(node), name=f"{node.name}_wide")
        twin.outputs[0].shape, twin.outputs[0].type = output.shape, output.type
        twin.outputs[0].name = f"{output.name}_wide"
        model.graph.insert_after(node, twin)
        for use in stay:
            use.node.replace_input_with(use.idx, twin.outputs[0])


def _axis(node: ir.Node) -> dict[str, int]:
    return {"axis": node.attributes["axis"].as_int()} if "axis" in node.attributes else {}


def _place_pairs(model: ir.Model, wide: Mapping[ir.Node, str]) -> set[ir.Node]:
    """Return the QuantizeLinear behind kept nodes and the DequantizeLinear before them."""
    found: set[ir.Node] = set()
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if source in wide or source in found:
                found.add(node)
        elif node.op_type == "DequantizeLinear":
            uses = list(node.outputs[0].uses())
            if uses and all(use.node in wide for use in uses):
                found.add(node)
    return found


def _convert_constants(graph: ir.Graph, narrow: Mapping[ir.Node, Formals], kind: ir.DataType) -> None:
    for value in list(graph.initializers.values()):
        if not _is_float(value) or value.is_graph_input() or value.const_value is None:
            continue
        uses = [use for use in value.uses() if use.node in narrow and narrow[use.node].takes(use.idx)]
        if not uses:
            continue
        array = value.const_value.numpy()
        # A constant past FP16 is an error here unless it fills a mask: its readers should have been kept.
        fitted = fit_constant(array) if kind == ir.DataType.FLOAT16 else array
        converted = add_constant(graph, f"{value.name}_{kind.name.lower()}", fitted.astype(kind.numpy()))
        for use in uses:
            use.node.replace_input_with(use.idx, converted)


def _set_attributes(narrow: Iterable[ir.Node], kind: ir.DataType) -> None:
    """Let the nodes whose attribute says the type of their output say the narrow one."""
    for node in narrow:
        if node.op_type == "Cast" and _is_float(node.outputs[0]):
            node.attributes["to"] = ir.AttrInt64("to", kind)
        elif node.op_type == "ConstantOfShape" and _is_float(node.outputs[0]):
            given = node.attributes.get("value")
            array = given.as_tensor().numpy() if given is not None else np.zeros(1, np.float32)
            fitted = fit_constant(array) if kind == ir.DataType.FLOAT16 else array
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(fitted.astype(kind.numpy())))


def _set_values(
    graph: ir.Graph, narrow: Mapping[ir.Node, Formals], kind: ir.DataType, narrow_ends: Container[str]
) -> None:
    """Decide the type of every computed or fed value, and cast it for the readers that want the other."""
    for value in list(graph.inputs):
        if _is_float(value):
            if value.name in narrow_ends:
                value.type = ir.TensorType(kind)
            _cast_for_readers(graph, value, narrow, None, kind)
    for node in list(graph):
        for index, output in enumerate(node.outputs):
            if not _is_float(output):
                continue
            gives = node in narrow and (node.op_type in SETS_TYPE or narrow[node].gives(index))
            if gives:
                output.type = ir.TensorType(kind)
            _cast_for_readers(graph, output, narrow, node, kind)
            is_narrow_end = output.name in narrow_ends
            if output.is_graph_output() and gives != is_narrow_end:
                _convert_output(graph, output, node, kind if is_narrow_end else _FLOAT)


def _cast_for_readers(
    graph: ir.Graph, value: ir.Value, narrow: Mapping[ir.Node, Formals], producer: ir.Node | None, kind: ir.DataType
) -> None:
    is_narrow = value.dtype == kind
    # A Cast reads any type, and its output is its own business.
    uses = [
        use
        for use in value.uses()
        if use.node.op_type != "Cast" and (use.node in narrow and narrow[use.node].takes(use.idx)) != is_narrow
    ]
    if not uses:
        return
    cast = _make_cast(value, _FLOAT if is_narrow else kind)
    if producer is None:
        graph.insert_before(graph[0], cast)
    else:
        graph.insert_after(producer, cast)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])


def _convert_output(graph: ir.Graph, output: ir.Value, producer: ir.Node, kind: ir.DataType) -> None:
    """Give the graph's output, under its name, the type it must have."""
    name = output.name
    output.name = f"{name}_narrow" if kind == _FLOAT else f"{name}_wide"
    cast = _make_cast(output, kind)
    cast.name, cast.outputs[0].name = f"{name}_cast", name
    graph.insert_after(producer, cast)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = cast.outputs[0]


def _make_cast(value: ir.Value, kind: ir.DataType) -> ir.Node:
    name = f"{value.name}_{kind.name.lower()}"
    cast = ir.node("Cast", [value], {"to": kind}, name=name)
    cast.outputs[0].shape, cast.outputs[0].type, cast.outputs[0].name = value.shape, ir.TensorType(kind), name
    return cast


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == _FLOAT


def _require_types(node: ir.Node) -> None:
    for value in node.outputs:
        if value.dtype is None and (value.uses() or value.is_graph_output()):
            what = f"the type of {value.name!r} is not known"
            raise UnsupportedModel(
                what, where=node.name, cure="run ONNX shape inference, or remove the custom operator"
            )


def _own(node: ir.Node) -> list[ir.Attr]:
    return [attribute for attribute in node.attributes.values() if isinstance(attribute, ir.Attr)]
