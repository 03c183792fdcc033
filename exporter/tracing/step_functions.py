"""What the two nodes of a traced decoder compute, as ONNX functions: attention over a cache, and rotary positions.

In: nothing. Out: functions for the domain ``stepdown``, whose bodies are standard operators: a runtime that knows
neither node inlines them. What fuses looks for one node rather than for twenty. Imports onnxscript, not torch.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import script
from onnxscript.onnx_opset import opset18 as op
from onnxscript.values import Opset

DOMAIN, VERSION = "stepdown", 1
ATTENTION, ROTATE = "CachedAttention", "Rotate"

_STEPDOWN = Opset(DOMAIN, VERSION)


@script(_STEPDOWN, default_opset=op)  # type: ignore[untyped-decorator]
def CachedAttention(query, key, value, past_key, past_value, attention_mask, scale: float, window: int):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Attend to the cache and the new tokens, causally (Vaswani et al., 2017; shared keys: Ainslie et al., 2023)."""
    present_key = op.Concat(past_key, key, axis=2)
    present_value = op.Concat(past_value, value, axis=2)
    batch = op.Shape(query, start=0, end=1)
    heads = op.Shape(query, start=1, end=2)
    new = op.Shape(query, start=2, end=3)
    width = op.Shape(query, start=3, end=4)
    shared = op.Shape(present_key, start=1, end=2)
    total = op.Shape(present_key, start=2, end=3)
    flat = op.Constant(value_ints=[-1])
    # Queries that share a key become rows of one product, so that no key is copied.
    rows = op.Reshape(query, op.Concat(batch, shared, flat, width, axis=0))
    products = op.MatMul(rows, op.Transpose(present_key, perm=[0, 1, 3, 2]))
    scores = op.Mul(op.Reshape(products, op.Concat(batch, heads, new, total, axis=0)), op.Constant(value_float=scale))
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    columns = op.Range(zero, op.Squeeze(total), one)
    own = op.Range(op.Squeeze(total - new), op.Squeeze(total), one)
    causal = op.LessOrEqual(columns, op.Unsqueeze(own, op.Constant(value_ints=[1])))
    # A window is measured in tokens that count: padding may lie anywhere, as behind the prompts of a batch.
    places = op.CumSum(attention_mask, one)
    behind = op.Unsqueeze(op.Gather(places, own, axis=1), op.Constant(value_ints=[2]))
    reach = op.Constant(value_int=window)
    near = op.Or(op.Less(reach, one), op.Less(behind - op.Unsqueeze(places, op.Constant(value_ints=[1])), reach))
    seen = op.And(causal, op.Unsqueeze(near, op.Constant(value_ints=[1])))
    counts = op.Cast(op.Unsqueeze(attention_mask, op.Constant(value_ints=[1, 2])), to=9)
    # The lowest number and not infinity: a row that sees nothing, which is padding, must not become NaN.
    lowest = op.Constant(value_float=-3.4028234663852886e38)
    weights = op.Softmax(op.Where(op.And(seen, counts), scores, lowest), axis=-1)
    mixed = op.MatMul(op.Reshape(weights, op.Concat(batch, shared, flat, total, axis=0)), present_value)
    output = op.Transpose(op.Reshape(mixed, op.Concat(batch, heads, new, width, axis=0)), perm=[0, 2, 1, 3])
    return output, present_key, present_value


@script(_STEPDOWN, default_opset=op)
def Rotate(x, cos, sin):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Turn the halves of every head by the angle of its position (Su et al., 2021)."""
    heads = op.Constant(value_ints=[1])
    low, high = op.Split(x, axis=-1, num_outputs=2)
    turned = op.Concat(op.Neg(high), low, axis=-1)
    return x * op.Unsqueeze(cos, heads) + turned * op.Unsqueeze(sin, heads)


def attach_functions(model: ir.Model) -> None:
    """Give a model the bodies of the nodes of :data:`DOMAIN` that it has."""
    used = {node.op_type for node in model.graph if node.domain == DOMAIN}
    for function in (CachedAttention, Rotate):
        if function.name in used:
            body = ir.from_proto(function.to_function_proto())
            # What the bodies use means the same in every set since 18, and inlining wants one for all.
            body.opset_imports[""] = model.opset_imports[""]
            model.functions[body.identifier()] = body
    if used:
        model.opset_imports[DOMAIN] = VERSION
