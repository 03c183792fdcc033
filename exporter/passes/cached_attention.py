"""A decoder's attention and rotary positions as the operators that ONNX Runtime has for them.

In: a graph with nodes of the domain ``stepdown`` (exporter/tracing/step_functions.py). Out: the same with
``GroupQueryAttention`` and ``RotaryEmbedding`` of ``com.microsoft`` in their place. Must not import a runtime.

GroupQueryAttention writes new keys behind the old ones where both are one buffer, which is what keeps a long context
from being copied for every token. Which keys a token sees, but for those behind it, is told by ``attention_bias``: its
own windows count padding, which may lie before a row, or behind the prompts of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from calibration.lower.edits import take_over
from exporter.passes.graph import made_by, only_user, permutation
from exporter.tracing.step_functions import ATTENTION, DOMAIN, ROTATE

_MICROSOFT = "com.microsoft"
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mask:
    """What all attentions of a step share.

    ``bias`` [batch, 1, sequence, total] is 0 where a key counts and is near enough, ``last`` int32 [batch] the index of
    the last token, ``total`` int32 how many there are.
    """

    bias: ir.Value
    last: ir.Value
    total: ir.Value


def fuse_attention(model: ir.Model) -> int:
    """Replace every attention over a cache by GroupQueryAttention; return how many."""
    nodes = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, ATTENTION)]
    masks: dict[tuple[ir.Value, int], _Mask] = {}
    for node in nodes:
        shared = mask, window = _require(node.inputs[5]), node.attributes["window"].as_int()
        if shared not in masks:
            masks[shared] = _describe_mask(node, mask, _require(node.inputs[0]), window)
        _replace_attention(node, masks[shared])
    _exchange(model, ATTENTION, len(nodes))
    return len(nodes)


def fuse_rotary(model: ir.Model) -> int:
    """Replace every turn of heads by RotaryEmbedding; return how many."""
    nodes = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, ROTATE)]
    tables: dict[tuple[ir.Value, ir.Value], tuple[ir.Value, ir.Value, ir.Value]] = {}
    for node in nodes:
        angles = _require(node.inputs[1]), _require(node.inputs[2])
        if angles not in tables:
            tables[angles] = _tabulate(node, *angles)
        _replace_rotary(node, *tables[angles])
    _exchange(model, ROTATE, len(nodes))
    return len(nodes)


def _replace_attention(node: ir.Node, mask: _Mask) -> None:
    query, key, value, past_key, past_value = (_require(one) for one in node.inputs[:5])
    heads, shared = _count_heads(query), _count_heads(key)
    tape = Tape()
    flat = [_merge_heads(tape, one) for one in (query, key, value)]
    made = tape.op_multi_out(
        "GroupQueryAttention",
        [*flat, past_key, past_value, mask.last, mask.total, None, None, None, mask.bias],
        {
            "num_heads": heads,
            "kv_num_heads": shared,
            "scale": node.attributes["scale"].as_float(),
        },
        num_outputs=3,
        domain=_MICROSOFT,
    )
    made[0].type = query.type
    output, present_key, present_value = node.outputs
    joined = _find_joined(output, query)
    if joined is None:
        joined, whole = output, tape.op("Reshape", [made[0], _ints(tape, (0, 0, heads, -1))])
    else:  # heads that are joined behind it need not be split first
        whole = made[0]
    _insert(node, tape)
    for old, new in ((joined, whole), (present_key, made[1]), (present_value, made[2])):
        take_over(old, new)
    for done in (*(use.node for use in output.uses()), node):
        _remove(done)


def _replace_rotary(node: ir.Node, cos: ir.Value, sin: ir.Value, rows: ir.Value) -> None:
    x = _require(node.inputs[0])
    tape = Tape()
    flat = _find_flat(x)
    if flat is None:
        turned = tape.op("RotaryEmbedding", [x, rows, cos, sin], domain=_MICROSOFT)
    else:  # before its heads are split, which the attention behind it does not need
        whole = tape.op("RotaryEmbedding", [flat, rows, cos, sin], domain=_MICROSOFT)
        whole.shape, whole.type = flat.shape, flat.type
        split = tape.op("Reshape", [whole, _ints(tape, (0, 0, _count_heads(x), -1))])
        turned = tape.op("Transpose", [split], {"perm": [0, 2, 1, 3]})
    _insert(node, tape)
    take_over(node.outputs[0], turned)
    _remove(node)


def _tabulate(before: ir.Node, cos: ir.Value, sin: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return (cosines, sines, rows): a table with a row for every token of this step, and which token reads which.

    RotaryEmbedding looks angles up by position. The angles of a step are computed in the graph, whatever the model
    makes of its positions, so each token's own are its table.
    """
    tape = Tape()
    width = int((cos.shape or (0,))[-1])  # fixed: what is turned has one width
    halves = [
        tape.op(
            "Reshape",
            [
                tape.op("Slice", [one, _ints(tape, (0,)), _ints(tape, (width // 2,)), _ints(tape, (-1,))]),
                _ints(tape, (-1, width // 2)),
            ],
        )
        for one in (cos, sin)
    ]
    places = tape.op("Shape", [cos], {"start": 0, "end": 2})
    count = tape.op("ReduceProd", [places], {"keepdims": 0})
    numbers = tape.op("Range", [_int(tape, 0), count, _int(tape, 1)])
    rows = tape.op("Reshape", [numbers, places])
    _insert(before, tape)
    return halves[0], halves[1], rows


def _describe_mask(before: ir.Node, mask: ir.Value, query: ir.Value, window: int) -> _Mask:
    tape = Tape()
    batch = tape.op("Shape", [mask], {"start": 0, "end": 1})
    length = tape.op("Shape", [mask], {"start": 1, "end": 2})
    total = tape.op("Cast", [tape.op("Squeeze", [length])], {"to": ir.DataType.INT32})
    last = tape.op("Expand", [tape.op("Sub", [total, _scalar(tape, np.int32(1))]), batch])
    new = tape.op("Shape", [query], {"start": 2, "end": 3})
    hidden = tape.op("Unsqueeze", [tape.op("Equal", [mask, _scalar(tape, np.int64(0))]), _ints(tape, (1,))])
    if window > 0:
        hidden = tape.op("Or", [hidden, _find_far(tape, mask, new, length, window)])
    row = tape.op("Where", [hidden, _scalar(tape, np.float32(_LOWEST)), _scalar(tape, np.float32(0))])
    wanted = tape.op("Concat", [batch, _ints(tape, (1,)), new, length], {"axis": 0})
    bias = tape.op("Expand", [tape.op("Unsqueeze", [row, _ints(tape, (1,))]), wanted])
    _insert(before, tape)
    return _Mask(bias=bias, last=last, total=total)


def _find_far(tape: Tape, mask: ir.Value, new: ir.Value, total: ir.Value, window: int) -> ir.Value:
    """Return where a key is out of a token's window [batch, sequence, total], measured in tokens that count."""
    places = tape.op("CumSum", [mask, _int(tape, 1)])
    own = tape.op("Slice", [places, tape.op("Sub", [total, new]), total, _ints(tape, (1,))])
    columns = [tape.op("Unsqueeze", [one, _ints(tape, (axis,))]) for one, axis in ((own, 2), (places, 1))]
    return tape.op("GreaterOrEqual", [tape.op("Sub", columns), _scalar(tape, np.int64(window))])


def _merge_heads(tape: Tape, value: ir.Value) -> ir.Value:
    """Return [batch, sequence, heads * width] of ``value`` [batch, heads, sequence, width]."""
    flat = _find_flat(value)
    if flat is not None:
        return flat
    turn = made_by(value, "Transpose")
    turned = turn is not None and permutation(turn) == (0, 2, 1, 3)
    split = turn.inputs[0] if turn is not None and turned else tape.op("Transpose", [value], {"perm": [0, 2, 1, 3]})
    return tape.op("Reshape", [split, _ints(tape, (0, 0, -1))])


def _find_joined(output: ir.Value, query: ir.Value) -> ir.Value | None:
    """Return [batch, sequence, heads * width] where heads [batch, sequence, heads, width] are only joined to that."""
    join = only_user(output, "Reshape")
    if join is None or query.shape is None or join.outputs[0].shape is None:
        return None
    batch, heads, sequence, width = query.shape
    if not isinstance(heads, int) or not isinstance(width, int):
        return None
    wanted = ir.Shape((batch, sequence, heads * width))
    return join.outputs[0] if join.outputs[0].shape == wanted else None


def _find_flat(value: ir.Value) -> ir.Value | None:
    """Return the tensor [batch, sequence, heads * width] whose heads were split and turned into ``value``, if any."""
    turn = made_by(value, "Transpose")
    if turn is None or permutation(turn) != (0, 2, 1, 3):
        return None
    split = made_by(turn.inputs[0], "Reshape")
    return split.inputs[0] if split is not None and _rank(split.inputs[0]) == 3 else None


def _count_heads(value: ir.Value) -> int:
    heads = (value.shape or (None, None))[1]
    assert isinstance(heads, int), f"{value.name} has no fixed number of heads"
    return heads


def _rank(value: ir.Value | None) -> int | None:
    return len(value.shape) if value is not None and value.shape is not None else None


def _require(value: ir.Value | None) -> ir.Value:
    assert value is not None, "a node of a traced decoder lacks an input"
    return value


def _insert(before: ir.Node, tape: Tape) -> None:
    graph = before.graph
    assert graph is not None
    for value in tape.initializers:
        graph.register_initializer(value)
    graph.insert_before(before, tape.nodes)


def _remove(node: ir.Node) -> None:
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _exchange(model: ir.Model, operator: str, count: int) -> None:
    """Drop the body of an operator that no node is left of, and import what stands for ``count`` of them."""
    if count:
        model.opset_imports.setdefault(_MICROSOFT, 1)
    for identifier in [one for one in model.functions if one[:2] == (DOMAIN, operator)]:
        del model.functions[identifier]
    if not model.functions:
        model.opset_imports.pop(DOMAIN, None)


def _ints(tape: Tape, numbers: tuple[int, ...]) -> ir.Value:
    return tape.op("Constant", [], {"value_ints": list(numbers)})


def _int(tape: Tape, number: int) -> ir.Value:
    return tape.op("Constant", [], {"value_int": number})


def _scalar(tape: Tape, number: np.generic) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(np.asarray(number))})
