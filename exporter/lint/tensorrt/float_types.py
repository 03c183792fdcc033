"""One float type on both sides of integers: FP32 scales in an FP16 graph make islands, and other scales are refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.pairs import Quantiser, is_sound, list_quantisers, name_of
from exporter.lint.rule import Note
from exporter.passes.graph import made_by, opset

_NARROW = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
#: Before it, QuantizeLinear has float32 scales only.
FIRST_OPSET = 19


def check_scale(model: ir.Model) -> Iterator[Note]:
    """Yield QuantizeLinear whose scale has another type than what it reads."""
    for quantiser in _list_mismatched(model):
        given, scale = quantiser.node.inputs[0], quantiser.node.inputs[1]
        if given is not None and scale is not None and given.dtype is not None and scale.dtype is not None:
            what = f"it reads {given.dtype.name} and its scale is {scale.dtype.name}"
            yield Note(node=quantiser.name, what=what, cure="store the scale in the type of the tensor")


def match_scale(model: ir.Model) -> int:
    """Store each such scale in the type of what is quantised; return how many."""
    return sum(
        _convert(model, quantiser, quantiser.node.inputs[0].dtype)
        for quantiser in _list_mismatched(model)
        if quantiser.node.inputs[0] is not None
    )


def check_islands(model: ir.Model) -> Iterator[Note]:
    """Yield quantisers in FP32 that are cut off from narrower neighbours by a Cast."""
    for quantiser, cast, kind in _list_islands(model):
        yield Note(
            node=quantiser.name,
            what=f"it works in FLOAT beside {kind.name}, with {name_of(cast)} between: TensorRT fuses over no Cast",
            cure=f"store its scale as {kind.name} and drop the Cast (opset {FIRST_OPSET} or later)",
        )


def join_islands(model: ir.Model) -> int:
    """Store the scales of islands in the type around them and drop the Casts; return how many."""
    count = 0
    for quantiser, cast, kind in list(_list_islands(model)):
        if not _convert(model, quantiser, kind):
            continue
        count += 1
        if quantiser.node.op_type == "QuantizeLinear":
            quantiser.node.replace_input_with(0, cast.inputs[0])
        else:
            quantiser.node.outputs[0].type = ir.TensorType(kind)
            ir.convenience.replace_all_uses_with(cast.outputs[0], quantiser.node.outputs[0])
    if count:
        remove_dead(model)
    return count


def _list_mismatched(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        given, scale = quantiser.node.inputs[0], quantiser.node.inputs[1]
        if quantiser.node.op_type != "QuantizeLinear" or given is None or scale is None:
            continue
        if given.dtype is not None and given.dtype.is_floating_point() and given.dtype != scale.dtype:
            yield quantiser


def _list_islands(model: ir.Model) -> Iterator[tuple[Quantiser, ir.Node, ir.DataType]]:
    """Yield FLOAT quantisers with a Cast from (Q) or to (DQ, each reader) a narrower type beside them."""
    for quantiser in list_quantisers(model):
        node, scale = quantiser.node, quantiser.node.inputs[1]
        if scale is None or scale.dtype != ir.DataType.FLOAT:
            continue
        if node.op_type == "QuantizeLinear":
            cast = made_by(node.inputs[0], "Cast")
            kind = cast.inputs[0].dtype if cast is not None and cast.inputs[0] is not None else None
        else:
            uses = list(node.outputs[0].uses())
            cast = uses[0].node if len(uses) == 1 and uses[0].node.op_type == "Cast" else None
            kind = cast.outputs[0].dtype if cast is not None else None
            if cast is not None and any(value.is_graph_output() for value in (node.outputs[0], cast.outputs[0])):
                continue  # an output of the graph keeps its type
        if cast is not None and kind in _NARROW:
            yield quantiser, cast, kind


def _convert(model: ir.Model, quantiser: Quantiser, kind: ir.DataType | None) -> int:
    if quantiser.scale is None or kind is None or not is_sound(quantiser) or opset(model) < FIRST_OPSET:
        return 0
    with np.errstate(over="ignore"):
        scale = quantiser.scale.astype(kind.numpy())
    wide = scale.astype(np.float32)
    if not np.isfinite(wide).all() or (wide <= 0).any():
        return 0  # it does not fit: the finding stays
    name = f"{quantiser.node.outputs[0].name}_scale_{kind.name.lower()}"
    quantiser.node.replace_input_with(1, add_constant(model.graph, name, scale))
    return 1
