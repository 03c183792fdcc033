"""A static plan as a graph TensorRT builds as written: int8 where the plan says, FP16, BF16 or FP32 elsewhere.

In: a float32 graph, its linears, a symmetric plan, magnitudes. Out: the graph edited, and what was done with each node.
TensorRT 10, 11 and RTX take the same graph: precision lives in it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes import common

from calibration.linears import Linear
from calibration.lower.edits import remove_dead
from calibration.lower.tensorrt.linears import Quantised, quantise_linears
from calibration.lower.tensorrt.overflow import find_overflow
from calibration.lower.tensorrt.products import Product, quantise_products
from calibration.lower.tensorrt.types import set_types
from calibration.plan import Plan

Precision = Literal["fp32", "fp16", "bf16"]
KINDS: Mapping[str, ir.DataType] = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What became of the graph.

    ``int8``: nodes that read int8. ``kept``: nodes in FP32 although the rest is narrower, and why. ``unmeasured``:
    float values without a magnitude, of which nobody can say that they fit FP16.
    """

    int8: tuple[str, ...]
    kept: Mapping[str, str]
    unmeasured: tuple[str, ...]


def lower_tensorrt(
    model: ir.Model,
    linears: Sequence[Linear],
    plan: Plan | None,
    *,
    precision: Precision = "fp16",
    magnitudes: Mapping[str, float],
    products: Sequence[Product] = (),
    narrow_ends: Container[str] = (),
) -> Lowered:
    """Edit ``model`` in place.

    Args:
        model: float32, shapes and types inferred, constants as initializers, opset 19 or later unless ``fp32``.
        linears: What to quantise.
        plan: Symmetric int8 for at least these linears; None to set types alone.
        precision: Of everything that is not int8.
        magnitudes: Largest magnitude of each float value over the calibration data.
        products: Products of two activations to quantise too.
        narrow_ends: Inputs and outputs of the graph that get the type of the rest too; others stay float32.

    Raises:
        UnsupportedModel: the plan or the graph cannot be expressed (named).
    """
    kind = KINDS[precision]
    unmeasured = _list_unmeasured(model, magnitudes) if precision == "fp16" else ()
    # Before anything is edited, while values have the names they were measured by.
    kept = find_overflow(model, magnitudes) if precision == "fp16" else {}
    done = Quantised(nodes=(), smoothed={})
    if plan is not None:
        done = quantise_linears(model, linears, plan, kind, magnitudes)
    quantise_products(model, products, kind)
    remove_dead(model)
    if precision == "fp16":
        kept |= find_overflow(model, {**magnitudes, **done.smoothed})
    int8 = (*done.nodes, *(product.node for product in products))
    if kind != ir.DataType.FLOAT:
        kept = {node: why for node, why in kept.items() if node.graph is not None}
        # TensorRT writes an int8 product's bare sums in the type of its output; the next kernel applies the scales
        # (read off plans of tensorrt_rtx 1.7.1). FP16 ends below the sum of five products, BF16 keeps 8 bits of it.
        sums = {node: "it writes int8 sums" for node in model.graph if node.name in int8 and node not in kept}
        kept = {
            node: why for node, why in set_types(model, kind, {**kept, **sums}, narrow_ends).items() if node not in sums
        }
        remove_dead(model)
    # What is added is named after what it belongs to, and the model may have something of that name already.
    common.NameFixPass()(model)
    return Lowered(
        int8=int8,
        kept={node.name or "": why for node, why in kept.items()},
        unmeasured=unmeasured,
    )


def _list_unmeasured(model: ir.Model, magnitudes: Mapping[str, float]) -> tuple[str, ...]:
    values = [value for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT]
    return tuple(value.name or "" for value in values if value.name not in magnitudes)
