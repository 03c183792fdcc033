"""The logits of the last token alone, unless all are asked for: what a loop reads of a prompt.

In: a decoder's float graph. Out: the graph edited. The head is the widest product of a small model, a fifth of what a
prompt of SmolLM2 takes, and its logits 200 MB of a prompt of 1,024 tokens. What tells the perplexity of a text feeds
``all_logits``, an input with a default. onnxruntime-genai leaves that as it is, and knows from the declared shape of
the logits that it gets one row a step.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from exporter.passes.graph import constant
from runtimes.generation.cache_spec import ALL_LOGITS, IDS, LOGITS, MASK

# By norm: how many of its first inputs hold tokens.
_NORMS = {
    "LayerNormalization": 1,
    "RMSNormalization": 1,
    "SimplifiedLayerNormalization": 1,
    "SkipLayerNormalization": 2,
    "SkipSimplifiedLayerNormalization": 2,
}
_ROUNDINGS = ("QuantizeLinear", "DequantizeLinear")
# What may stand between the head and its logits: number by number, with a constant or with nothing.
_BEHIND_HEAD = ("Add", "Sub", "Mul", "Div", "Tanh", "Cast", "Identity")
_FIRST_KEY = "past_key_values.0.key"
# The axis of the tokens that are scored.
_SCORED = "scored"


def keep_last_logits(model: ir.Model) -> bool:
    """Edit ``model`` in place where it is a decoder with a cache; return whether it is, and its head was found.

    The last token is the last that counts (``attention_mask``), on whichever side a batch is filled up.
    """
    fed = {value.name: value for value in model.graph.inputs}
    logits = next((value for value in model.graph.outputs if value.name == LOGITS), None)
    head = _find_head(logits) if logits is not None and {IDS, MASK, _FIRST_KEY} <= fed.keys() else None
    if logits is None or head is None:
        return False
    reader, count = _find_reader(head)
    tape = Tape()
    places = _place_rows(tape, model.graph, fed[IDS], fed[MASK])
    rows = [tape.op("GatherND", [read, places], {"batch_dims": 1}) for read in reader.inputs[:count]]
    model.graph.insert_before(reader, tape.nodes)
    for number, value in enumerate(rows):
        reader.replace_input_with(number, value)
    _declare(reader, logits)
    return True


def _find_head(logits: ir.Value) -> ir.Node | None:
    node = logits.producer()
    while node is not None and node.op_type in _BEHIND_HEAD:
        computed = [value for value in node.inputs if value is not None and constant(value) is None]
        node = computed[0].producer() if len(computed) == 1 else None
    return node if node is not None and node.op_type == "MatMul" else None


def _find_reader(head: ir.Node) -> tuple[ir.Node, int]:
    """Return what reads the rows to choose from, and how many of its inputs: the norm before the head, or the head.

    Behind a norm that something else reads too, or none, it is the head, with the rounding before it where it has one.
    """
    reader = head
    while (before := _find_only_producer(reader)) is not None and before.op_type in _ROUNDINGS:
        reader = before
    return (before, _NORMS[before.op_type]) if before is not None and before.op_type in _NORMS else (reader, 1)


def _find_only_producer(node: ir.Node) -> ir.Node | None:
    """Return what computes the first input of a node, where nothing else reads anything of it."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None or any(value.is_graph_output() for value in producer.outputs):
        return None
    return producer if sum(len(value.uses()) for value in producer.outputs) == 1 else None


def _place_rows(tape: Tape, graph: ir.Graph, ids: ir.Value, mask: ir.Value) -> ir.Value:
    """Return which of the new tokens are scored, int64 [batch, scored, 1].

    Behind the place of the last token lie those of all: a slice takes the first, or what is behind it.
    """
    asked, axis = _add_default(graph), _ints(tape, 1)
    shape = tape.op("Shape", [ids])
    count = tape.op("Shape", [ids], {"start": 1, "end": 2})
    new = tape.op("Slice", [mask, tape.op("Neg", [count]), _ints(tape, np.iinfo(np.int64).max), axis])
    last = tape.op("ArgMax", [new], {"axis": 1, "keepdims": 1, "select_last_index": 1})
    bounds = [tape.op("Constant", [], {"value_int": number}) for number in (0, 1)]
    places = tape.op("Range", [bounds[0], tape.op("Squeeze", [count]), bounds[1]])
    both = tape.op("Concat", [last, tape.op("Expand", [places, shape])], {"axis": 1})
    end = tape.op("Add", [axis, tape.op("Mul", [asked, count])])
    return tape.op("Unsqueeze", [tape.op("Slice", [both, asked, end, axis]), _ints(tape, -1)])


def _add_default(graph: ir.Graph) -> ir.Value:
    """Register the input, int64 [1]: 0, or 1 where all are asked for."""
    default = ir.tensor(np.zeros(1, np.int64), name=ALL_LOGITS)
    value = ir.Value(name=ALL_LOGITS, const_value=default, shape=default.shape, type=ir.TensorType(default.dtype))
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value


def _ints(tape: Tape, number: int) -> ir.Value:
    return tape.op("Constant", [], {"value_ints": [number]})


def _declare(reader: ir.Node, logits: ir.Value) -> None:
    """Say of what is computed of the rows how many there are; of the logits, how many there are by default."""
    reached = [reader]
    while reached:
        for value in reached.pop().outputs:
            if value.shape is not None:
                value.shape = ir.Shape([value.shape[0], _SCORED, *value.shape[2:]])
            reached += [use.node for use in value.uses()]
    if logits.shape is not None:
        logits.shape = ir.Shape([logits.shape[0], 1, *logits.shape[2:]])
