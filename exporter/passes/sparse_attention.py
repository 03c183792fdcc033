"""Attention beside sparse linears goes to the kernels that the model needs anyway, which skip padded tokens.

In: a model after exporter/passes/attention.py and padding_mask.py. Out: the same model with
``ScaledDotProductAttention`` (domain ``ai.stepdown``) for the 3-D ``Attention`` of ONNX that has no mask or the short
padding mask. ONNX Runtime spreads that mask over batch, heads and queries and adds it to every score.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import remove_dead, take_over
from exporter.passes.graph import made_by, scalar
from exporter.passes.padding_mask import MASKED
from runtimes.sparse.library import DOMAIN

# All that the operator knows of what a node may say; heads of keys and values are as many as those of queries.
_KNOWN = {"q_num_heads", "kv_num_heads", "scale"}


def replace_attention(model: ir.Model) -> int:
    """Replace the attention of a model that our operators take; return how many nodes."""
    replaced = sum(_replace(node) for node in list(model.graph) if node.op_type == "Attention" and node.domain == "")
    if replaced:
        model.graph.opset_imports[DOMAIN] = 1
        remove_dead(model)
    return replaced


def _replace(node: ir.Node) -> int:
    heads, features = node.attributes.get_int("q_num_heads", 0), _find_features(node)
    if features is None or heads < 1 or features % heads or set(node.attributes) - _KNOWN:
        return 0
    scale = node.attributes.get_float("scale", 1 / math.sqrt(features // heads))
    if node.attributes.get_int("kv_num_heads", 0) != heads or not 0 < np.float32(scale) < np.inf:
        return 0
    if any(value is not None for value in node.inputs[4:]):
        return 0  # a cache of keys and values
    if any(extra.uses() or extra.is_graph_output() for extra in node.outputs[1:]):
        return 0
    inputs = list(node.inputs[:3])
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        seen = _find_padding(node.inputs[3])
        if seen is None:
            return 0
        inputs.append(seen)
    attributes = {"features": features, "heads": heads, "scale": scale}
    ours = ir.node("ScaledDotProductAttention", inputs, attributes, domain=DOMAIN, name=node.name)
    assert node.graph is not None, "found in one"
    node.graph.insert_before(node, ours)
    take_over(node.outputs[0], ours.outputs[0])
    return 1


def _find_features(node: ir.Node) -> int | None:
    """Return the width of queries, keys and values, where it is one number and each is float32 of three axes."""
    widths = set()
    for value in node.inputs[:3]:
        if value is None or value.dtype != ir.DataType.FLOAT or value.shape is None or len(value.shape) != 3:
            return None
        widths.add(value.shape[2])
    (width, *others) = widths
    return width if isinstance(width, int) and not others else None


def _find_padding(mask: ir.Value) -> ir.Value | None:
    """Return the [batch, keys] of bool behind the short padding mask, as padding_mask.py builds it."""
    spread = made_by(mask, "Expand")
    lift = made_by(spread.inputs[0], "Unsqueeze") if spread is not None else None
    fill = made_by(lift.inputs[0], "Where") if lift is not None else None
    if fill is None or scalar(fill.inputs[1]) != 0 or scalar(fill.inputs[2]) != MASKED:
        return None
    return fill.inputs[0]
