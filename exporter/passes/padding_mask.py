"""The attention mask in its shortest form, proved equal by running both.

Exporters trace a mask through up to twenty small nodes, and fill it with the lowest float. Two things are wrong with
that on a CPU: the nodes cost time at short sequences, and ONNX Runtime's softmax leaves denormal weights (its
exponential stops at -104) at masked keys, on which attention takes 1.7 to 2.1 times as long: bench/suites/attention.py.
``MASKED`` keeps the weights normal numbers: exp(-60) is 9e-27, nothing beside the 6e-8 of float32, and stays clear of
the smallest normal (exp(-87)) while scores differ by less than 27.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MASKED = -60.0
# Below this a traced mask value means "never attend".
HIDDEN = -1e4
MASK_INPUT = "attention_mask"
PROBE_SHAPES = ((1, 1), (2, 5), (3, 8))
# A mask of this length squared takes 64 MB.
LONGEST_PROBE = 4096
# A constant of more numbers is a table, not a few lengths.
_SMALL = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behind:
    """What a value is computed from.

    ``inputs`` are values fed to the graph, ``read`` those of them that more than the shape is read of; ``longest`` is
    the largest number on the way that may count tokens, ``table`` the longest axis of a stored table, 0 without one.
    """

    inputs: frozenset[ir.Value]
    read: frozenset[ir.Value]
    longest: int
    table: int


def shorten_mask(model: ir.Model) -> int:
    """Replace each mask that attention reads by the short form where both say the same; return how many."""
    fed = next((value for value in model.graph.inputs if value.name == MASK_INPUT), None)
    if fed is None or any((value.name or "").startswith("decoder_") for value in model.graph.inputs):
        return 0  # a decoder looks at a text of another length, on which the probes say nothing
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        mask = node.inputs[3] if node.op_type == "Attention" and len(node.inputs) > 3 else None
        if mask is not None:
            readers.setdefault(mask, []).append(node)
    proved = [mask for mask in readers if _runs_alone(model.graph, mask) and _says_padding(model, mask, fed)]
    if not proved:
        return 0
    nodes = _build_mask(model.graph, fed)
    model.graph.insert_before(model.graph[0], nodes)
    for node in (node for mask in proved for node in readers[mask]):
        node.replace_input_with(3, nodes[-1].outputs[0])
    remove_dead(model)
    return len(proved)


def _runs_alone(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether ``graph`` itself holds ``value``: what a branch computes cannot be cut out and run."""
    producer = value.producer()
    return producer is None or producer.graph is graph


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


def _says_padding(model: ir.Model, mask: ir.Value, fed: ir.Value) -> bool:
    """Run the nodes behind ``mask`` on random padding and compare with what the short form would give."""
    from onnxruntime import InferenceSession

    behind = _look_behind(mask)
    # What hides a token of its own, no random text is sure to hold.
    if mask.dtype != ir.DataType.FLOAT or behind is None or behind.read != {fed}:
        return False
    reads = [value for value in model.graph.inputs if value in behind.inputs]
    if any(value.dtype != ir.DataType.INT64 or value.shape is None or len(value.shape) != 2 for value in reads):
        return False
    # A window (local attention) shows only in texts longer than it, on both sides of a token.
    wide = 2 * behind.longest + 3
    if max(wide, behind.table) > LONGEST_PROBE:
        return False
    part = ir.Model(ir.convenience.extract(model.graph, reads, [mask]), ir_version=model.ir_version)
    session = InferenceSession(ir.to_proto(part).SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    lengths = (wide, behind.table) if behind.table else (wide,)
    return all(_agrees(session, shape, generator) for shape in (*PROBE_SHAPES, *((1, length) for length in lengths)))


def _agrees(session: InferenceSession, shape: tuple[int, int], generator: np.random.Generator) -> bool:
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    keep = generator.integers(0, 2, shape)
    keep[:, 0] = 1
    feeds = {i.name: generator.integers(0, 2, shape) for i in session.get_inputs()}
    feeds[MASK_INPUT] = keep
    try:
        (got,) = session.run(None, feeds)
    except (Fail, InvalidArgument, RuntimeException):
        return False  # it does not take every length: not the padding mask the short form stands for
    return _means(got, keep)


def _means(got: NDArray[np.float32], keep: NDArray[np.int64]) -> bool:
    """Whether ``got`` is ``[batch, heads or 1, sequence, sequence]`` and hides what ``keep`` says, from every query."""
    batch, length = keep.shape
    if got.ndim != 4 or (got.shape[0], *got.shape[2:]) != (batch, length, length):
        return False
    wanted = np.broadcast_to(keep[:, None, None, :] == 1, got.shape)
    return bool(np.all(got[wanted] == 0) and np.all(got[~wanted] <= HIDDEN))


def _look_behind(value: ir.Value) -> _Behind | None:
    """Walk back from ``value``; None where a node holds a graph of its own, or nothing computes ``value``."""
    inputs: set[ir.Value] = set()
    read: set[ir.Value] = set()
    seen: set[tuple[ir.Value, bool]] = set()
    longest, table, waiting = 0, 0, [(value, True)]
    while waiting:
        current, counts = waiting.pop()
        if current.const_value is not None:
            longest = max(longest, _find_longest(current.const_value) if counts else 0)
            table = max(table, _measure_table(current.const_value) if counts else 0)
            continue
        if (current, counts) in seen:
            continue
        seen.add((current, counts))
        node = current.producer()
        if node is None:
            inputs.add(current)
            read |= {current} if counts else set()
            continue
        if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _own(node)):
            return None
        # Where only the shape is read, no number behind it can be a window.
        waiting.extend((v, counts and node.op_type != "Shape") for v in node.inputs if v is not None)
    if value.producer() is None:
        return None
    return _Behind(inputs=frozenset(inputs), read=frozenset(read), longest=longest, table=table)


def _own(node: ir.Node) -> list[ir.Attr]:
    return [attribute for attribute in node.attributes.values() if isinstance(attribute, ir.Attr)]


def _find_longest(tensor: ir.TensorProtocol) -> int:
    """Return the largest number of a small constant that can be a length; a Slice's "to the end" cannot.

    Nor can a float past the longest probe, which is what masks are filled with.
    """
    if tensor.size > _SMALL or not (tensor.dtype.is_integer() or tensor.dtype.is_floating_point()):
        return 0
    most = 2**31 - 1 if tensor.dtype.is_integer() else LONGEST_PROBE
    return max((math.ceil(size) for number in tensor.numpy().flat if (size := abs(float(number))) <= most), default=0)


def _measure_table(tensor: ir.TensorProtocol) -> int:
    """Return the longest axis of a larger constant: a text of that length reads all of what is cut out of it."""
    return max(tensor.shape.numpy()) if tensor.size > _SMALL else 0
