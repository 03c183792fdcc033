"""The attention mask in its shortest form, proved equal by running both.

Exporters trace a mask through twenty small nodes, and fill it with the lowest float. Two things are wrong with that
on a CPU: the nodes cost more than an attention layer at short sequences, and ONNX Runtime's softmax leaves denormal
weights (its exponential stops at -104) at masked keys, on which the product with the values runs 40 % slower.
``MASKED`` keeps the weights normal numbers: exp(-60) is 9e-27, nothing beside the 6e-8 of float32, and stays clear of
the smallest normal (exp(-87)) while scores differ by less than 27.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant
from exporter.passes.graph import remove_dead

MASKED = -60.0
# Below this a traced mask value means "never attend".
HIDDEN = -1e4
MASK_INPUT = "attention_mask"
PROBE_SHAPES = ((1, 1), (2, 5), (3, 8))


def shorten_mask(model: ir.Model) -> int:
    """Replace each mask that attention reads by the short form where both say the same; return how many."""
    fed = next((value for value in model.graph.inputs if value.name == MASK_INPUT), None)
    if fed is None:
        return 0
    masks = {node.inputs[3]: node for node in model.graph if node.op_type == "Attention" and len(node.inputs) > 3}
    proved = [mask for mask in masks if mask is not None and _says_padding(model, mask)]
    if not proved:
        return 0
    first = next(node for node in model.graph if any(value in proved for value in node.inputs))
    nodes = _build_mask(model.graph, fed)
    model.graph.insert_before(first, nodes)
    for mask in proved:
        ir.convenience.replace_all_uses_with(mask, nodes[-1].outputs[0])
    remove_dead(model)
    return len(proved)


def _build_mask(graph: ir.Graph, fed: ir.Value) -> list[ir.Node]:
    """[batch, sequence] of 0 and 1 -> [batch, 1, sequence, sequence] of MASKED and 0."""
    axes = add_constant(graph, "mask.axes", np.array([1, 2], np.int64))
    one = add_constant(graph, "mask.one", np.array([1], np.int64))
    seen = add_constant(graph, "mask.seen", np.array(0, np.float32))
    hidden = add_constant(graph, "mask.hidden", np.array(MASKED, np.float32))
    keep = ir.node("Cast", [fed], {"to": ir.DataType.BOOL}, name="mask_keep")
    batch = ir.node("Shape", [fed], {"start": 0, "end": 1}, name="mask_batch")
    length = ir.node("Shape", [fed], {"start": 1, "end": 2}, name="mask_length")
    full = ir.node(
        "Concat",
        [batch.outputs[0], one, length.outputs[0], length.outputs[0]],
        {"axis": 0},
        name="mask_shape",
    )
    fill = ir.node("Where", [keep.outputs[0], seen, hidden], name="mask_fill")
    lift = ir.node("Unsqueeze", [fill.outputs[0], axes], name="mask_lift")
    spread = ir.node("Expand", [lift.outputs[0], full.outputs[0]], name="mask_spread")
    spread.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return [keep, batch, length, full, fill, lift, spread]


def _says_padding(model: ir.Model, mask: ir.Value) -> bool:
    """Run the nodes behind ``mask`` on random padding and compare with what the short form would give."""
    from onnxruntime import InferenceSession

    if mask.dtype != ir.DataType.FLOAT or mask.producer() is None:
        return False
    reads = [value for value in model.graph.inputs if value.dtype == ir.DataType.INT64]
    if not _depends_only_on(mask, set(reads)):
        return False
    part = ir.Model(ir.convenience.extract(model.graph, reads, [mask]), ir_version=model.ir_version)
    session = InferenceSession(ir.to_proto(part).SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    return all(_agrees(session, shape, generator) for shape in PROBE_SHAPES)


def _agrees(session: object, shape: tuple[int, int], generator: np.random.Generator) -> bool:
    keep = generator.integers(0, 2, shape)
    keep[:, 0] = 1
    feeds = {i.name: generator.integers(0, 2, shape) for i in session.get_inputs()}  # type: ignore[attr-defined]
    feeds[MASK_INPUT] = keep
    (got,) = session.run(None, feeds)  # type: ignore[attr-defined]
    return _means(got, keep)


def _means(got: NDArray[np.float32], keep: NDArray[np.int64]) -> bool:
    if got.ndim != 4:
        return False
    wanted = np.broadcast_to(keep[:, None, None, :] == 1, (*got.shape[:3], keep.shape[1]))
    return bool(wanted.shape == got.shape and np.all(got[wanted] == 0) and np.all(got[~wanted] <= HIDDEN))


def _depends_only_on(value: ir.Value, allowed: set[ir.Value]) -> bool:
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current in seen or current.const_value is not None:
            continue
        seen.add(current)
        node = current.producer()
        if node is None:
            if current not in allowed:
                return False
            continue
        waiting.extend(v for v in node.inputs if v is not None)
    return True
