"""Attention as one operator on [batch, sequence, hidden], without the transposes around it.

In: a float model at opset 23 or later, with attention as exported: decomposed (MatMul, Softmax, MatMul) or as the
4-D ``Attention``. Out: the same model with the 3-D form of ``Attention`` (ONNX opset 23), which ONNX Runtime's CPU
kernel runs 1.6 to 2.4 times as fast as its MultiHeadAttention with a bias (bench/suites/attention.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from calibration.lower.edits import remove_dead, take_over
from exporter.passes.graph import made_by, only_user, opset, permutation, scalar

HEADS_OUT = (0, 2, 1, 3)
FIRST_OPSET = 23

# Masks with a row a query: of which mask, for how many queries, in which graph (none sees into another's branch).
_Spread = dict[tuple[ir.Value, object, object], ir.Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """softmax(scale * q @ k^T + masks) @ v, with q, k, v as [batch, heads, sequence, size]."""

    query: ir.Value
    key: ir.Value
    key_is_transposed: bool
    masks: tuple[ir.Value, ...]
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hidden:
    """[batch, sequence, heads * size] behind a split into heads."""

    hidden: ir.Value
    size: int
    heads: int


def compose_attention(model: ir.Model) -> int:
    """Replace decomposed attention by 4-D ``Attention`` nodes, in branches too; return how many."""
    if opset(model) < FIRST_OPSET:
        return 0
    spread: _Spread = {}
    changed = sum(_compose(node, spread) for node in list(model.graph.all_nodes()) if node.op_type == "Softmax")
    if changed:
        remove_dead(model)
    return changed


def flatten_attention(model: ir.Model) -> int:
    """Move 4-D ``Attention`` nodes to the 3-D form, dropping the transposes around them; return how many."""
    nodes = [node for node in model.graph.all_nodes() if node.op_type == "Attention" and node.domain == ""]
    changed = sum(_flatten(node) for node in nodes)
    if changed:
        remove_dead(model)
    return changed


def _compose(softmax: ir.Node, spread: _Spread) -> int:
    axis = softmax.attributes.get("axis")
    product = only_user(softmax.outputs[0], "MatMul")
    scores = _match_scores(softmax.inputs[0])
    if scores is None or product is None or (axis is not None and axis.as_int() not in (-1, 3)):
        return 0
    if product.inputs[0] is not softmax.outputs[0] or not _is_rank4(product.inputs[1]):
        return 0
    if not _takes(scores, product.inputs[1]):
        return 0
    new: list[ir.Node] = []
    key = scores.key
    if scores.key_is_transposed:
        turn = ir.node("Transpose", [key], {"perm": [0, 1, 3, 2]})
        new.append(turn)
        key = turn.outputs[0]
    mask = _join_masks(scores, softmax.graph, spread, new)
    inputs = [scores.query, key, product.inputs[1], *([mask] if mask is not None else [])]
    node = ir.node("Attention", inputs, {"scale": scores.scale}, name=f"{softmax.name}_attention")
    new.append(node)
    _replace(product, new)
    return 1


def _takes(scores: _Scores, value: ir.Value | None) -> bool:
    """Whether Attention takes what the products and additions take, as far as shapes tell: it broadcasts less."""
    ones = [(_is_one(one, 0), _is_one(one, 1)) for one in (scores.query, scores.key, value)]
    batches, heads = zip(*ones, strict=True)
    # Several heads of queries may share those of keys and values, never the other way round.
    shared = len(set(batches)) == 1 and heads[1] == heads[2] and heads[0] <= heads[1]
    return shared and (not scores.masks or not all(_has_one_key(mask) for mask in scores.masks))


def _is_one(value: ir.Value | None, axis: int) -> bool:
    return value is not None and value.shape is not None and value.shape[axis] == 1


def _has_one_key(mask: ir.Value) -> bool:
    return mask.shape is not None and (len(mask.shape) == 0 or mask.shape[-1] == 1)


def _join_masks(
    scores: _Scores, graph: ir.Graph | ir.Function | None, spread: _Spread, new: list[ir.Node]
) -> ir.Value | None:
    """Return the sum of what is added to the scores, as one mask.

    A mask with one row for all queries gets a row each: an addition broadcasts it, ONNX Runtime's Attention does
    not. ``spread`` remembers the masks done, by how many queries there are: most layers read the same one. Where its
    keys are as many as the queries, that is done beside the mask, for attention in branches too.
    """
    mask = _sum_masks(scores.masks, new)
    if mask is None or not all(_has_one_row(part) for part in scores.masks):
        return mask
    length = _name_length(scores.query)
    maker = mask.producer() if mask.shape is not None and mask.shape[-1] == length else None
    place = None if maker is None else maker.graph
    done = mask, length, place or graph
    if done not in spread:
        if maker is None or place is None:
            nodes = _spread_rows(mask, scores.query, axis=2)
            new += nodes
        else:
            nodes = _spread_rows(mask, mask, axis=len(mask.shape or ()) - 1)
            place.insert_after(maker, nodes)
        spread[done] = nodes[-1].outputs[0]
    return spread[done]


def _spread_rows(mask: ir.Value, counted: ir.Value, axis: int) -> list[ir.Node]:
    """Give a mask as many rows as ``counted`` is long on ``axis``."""
    length = ir.node("Shape", [counted], {"start": axis, "end": axis + 1})
    one = ir.node("Constant", [], {"value_ints": [1]})
    shape = ir.node("Concat", [one.outputs[0], one.outputs[0], length.outputs[0], one.outputs[0]], {"axis": 0})
    rows = ir.node("Expand", [mask, shape.outputs[0]])
    rows.outputs[0].type = mask.type
    return [length, one, shape, rows]


def _name_length(query: ir.Value) -> object:
    """Return what is alike where queries are as many; the value itself where nothing tells."""
    length = query.shape[2] if query.shape is not None else None
    return length if isinstance(length, int) else length.value if length is not None and length.value else query


def _has_one_row(mask: ir.Value) -> bool:
    return mask.shape is not None and (len(mask.shape) < 2 or mask.shape[-2] == 1)


def _sum_masks(masks: tuple[ir.Value, ...], new: list[ir.Node]) -> ir.Value | None:
    total = masks[0] if masks else None
    for mask in masks[1:]:
        add = ir.node("Add", [total, mask])
        add.outputs[0].type = mask.type
        new.append(add)
        total = add.outputs[0]
    return total


def _match_scores(value: ir.Value | None) -> _Scores | None:
    found = _find_product(value)
    if found is None:
        return None
    scale, product, masks = found
    if not (_is_rank4(product.inputs[0]) and _is_rank4(product.inputs[1])):
        return None
    query_scale, query = _unscale(product.inputs[0], scale)
    total, key = _unscale(product.inputs[1], query_scale)
    if query is None or key is None:
        return None
    turned = made_by(key, "Transpose")
    if turned is not None and permutation(turned) == (0, 1, 3, 2) and turned.inputs[0] is not None:
        return _Scores(query=query, key=turned.inputs[0], key_is_transposed=False, masks=masks, scale=total)
    return _Scores(query=query, key=key, key_is_transposed=True, masks=masks, scale=total)


def _find_product(value: ir.Value | None) -> tuple[float, ir.Node, tuple[ir.Value, ...]] | None:
    """Find scale, q @ k^T and all that is added to it (mask, position bias) behind the softmax's input."""
    scale, bare = _unscale(value, 1.0)
    product = made_by(bare, "MatMul")
    if product is not None:
        return scale, product, ()
    add = made_by(value, "Add")
    if add is None:
        return None
    for scores, other in ((add.inputs[0], add.inputs[1]), (add.inputs[1], add.inputs[0])):
        found = _find_product(scores)
        if found is not None and other is not None:
            return found[0], found[1], (*found[2], other)
    return None


def _unscale(value: ir.Value | None, scale: float) -> tuple[float, ir.Value | None]:
    """Take a multiplication or division by one number off ``value``."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return scale, value
    factor = scalar(node.inputs[1])
    if factor is not None:
        return (scale * factor if node.op_type == "Mul" else scale / factor), node.inputs[0]
    factor = scalar(node.inputs[0])
    if factor is not None and node.op_type == "Mul":
        return scale * factor, node.inputs[1]
    return scale, value


def _is_rank4(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 4


def _flatten(node: ir.Node) -> int:
    if any(v is not None for v in node.inputs[4:]) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return 0  # a cache of keys and values has its own layout
    query, key, value = (_find_hidden(v) for v in node.inputs[:3])
    exit_path = _find_exit(node)
    if query is None or key is None or value is None or exit_path is None:
        return 0
    if key.heads != value.heads:
        return 0
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    inputs = [query.hidden, key.hidden, value.hidden, *([mask] if mask is not None else [])]
    flat = ir.node("Attention", inputs, {"q_num_heads": query.heads, "kv_num_heads": key.heads}, name=node.name)
    flat.attributes.setdefault("scale", ir.AttrFloat32("scale", 1 / math.sqrt(query.size)))
    flat.attributes.update(node.attributes)
    _replace(exit_path, [flat])
    return 1


def _find_hidden(value: ir.Value | None) -> _Hidden | None:
    """Follow [batch, heads, sequence, size] back to [batch, sequence, hidden]."""
    steps: list[tuple[int, ...]] = []
    node = made_by(value, "Transpose", "Reshape")
    while node is not None and node.op_type == "Transpose":
        perm = permutation(node)
        if perm is None:
            return None
        steps.append(perm)
        node = made_by(node.inputs[0], "Transpose", "Reshape")
    order = tuple(range(4))
    for perm in reversed(steps):
        order = tuple(order[axis] for axis in perm) if len(perm) == 4 else ()
    if node is None or order != HEADS_OUT:
        return None
    hidden, split = node.inputs[0], node.outputs[0]
    if hidden is None or hidden.shape is None or len(hidden.shape) != 3 or split.shape is None or len(split.shape) != 4:
        return None
    width, size, heads = hidden.shape[2], split.shape[3], split.shape[2]
    if not isinstance(width, int) or not isinstance(size, int) or size == 0 or width % size:
        return None
    # A reshape may also cut a sequence in pieces; then there are more heads than the width holds.
    if isinstance(heads, int) and heads != width // size:
        return None
    return _Hidden(hidden=hidden, size=size, heads=width // size)


def _find_exit(node: ir.Node) -> ir.Node | None:
    """Return the Reshape back to [batch, sequence, hidden] after the output transpose.

    Between them the exporter may zero rows whose keys are all masked (``Where``): such a row is a text without
    tokens, whose output nobody can read; it is dropped.
    """
    after = only_user(node.outputs[0], "Transpose", "Where")
    if after is not None and after.op_type == "Where":
        if after.inputs[2] is not node.outputs[0] or scalar(after.inputs[1]) != 0:
            return None
        after = only_user(after.outputs[0], "Transpose")
    if permutation(after) != HEADS_OUT or after is None:
        return None
    reshape = only_user(after.outputs[0], "Reshape")
    if reshape is None or reshape.outputs[0].shape is None or len(reshape.outputs[0].shape) != 3:
        return None
    return reshape


def _replace(old: ir.Node, new: list[ir.Node]) -> None:
    """Put ``new`` before ``old`` and let the last of them give what ``old`` gave."""
    if old.graph is None:
        return
    old.graph.insert_before(old, new)
    take_over(old.outputs[0], new[-1].outputs[0])
