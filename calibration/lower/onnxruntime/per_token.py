"""Dynamic INT8 with a scale a token: each row of activations is rounded by itself, weights int8 per output channel.

A decoder reads a prompt at once and the tokens after it one by one. With one scale for all that comes at once
(DynamicQuantizeLinear) a token would be rounded otherwise behind a cache than without (microsoft/onnxruntime#10322).
Scales a token are those of Dettmers et al., "LLM.int8()", 2022 (arXiv:2208.07339), section 3.

ONNX Runtime has no operator for it: a row is divided by its largest magnitude, rounded to a fixed scale of 1/127 around
128, and the product is multiplied with that magnitude. Of 512 rows and a weight of 576 x 1,536 all that takes 0.6 ms on
two cores with VNNI, float 1.9 and blocks of 8 bits (MatMulNBits) 1.5 to 1.9; of a single row it takes what blocks take.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from calibration.linears import Linear
from calibration.lower.edits import add_constant
from calibration.lower.onnxruntime.dynamic import CONTRIB, store_weight
from calibration.lower.onnxruntime.sites import Site, find_sites, replace_site, require_contrib

# What a magnitude of 1 becomes, and where zero lies.
_LEVELS, _ZERO = 127, 128


def lower_per_token(model: ir.Model, linears: Sequence[Linear], *, weight_bits: int) -> None:
    """Edit ``model`` in place: ``linears`` run in dynamic INT8, with a scale for each token.

    Args:
        model: A float model; its other nodes stay as they are.
        linears: MatMul and Gemm layers to lower, those of branches too.
        weight_bits: 8, or 7 where the CPU adds two uint8 x int8 products in 16 bits (255 * 64 * 2 < 32768).
    """
    require_contrib(model)
    rounded: dict[tuple[ir.Graph | None, ir.Value], tuple[ir.Value, ir.Value]] = {}
    for site in find_sites(model, linears):
        read = (site.node.graph, site.activation)
        new: list[ir.Node] = []
        if read not in rounded:
            new = _round_rows(model.graph, site)
            rounded[read] = new[-1].outputs[0], new[1].outputs[0]
        values, magnitude = rounded[read]
        replace_site(site, [*new, *_multiply(model.graph, site, values, magnitude, weight_bits)])
    RemoveUnusedNodesPass()(model)


def _round_rows(graph: ir.Graph, site: Site) -> list[ir.Node]:
    """Return the nodes that round what a linear reads: the second gives the magnitudes, the last the integers.

    A row of zeros divides by zero. Whatever integers that gives, their product is multiplied with zero.
    """
    name = site.linear.node
    axis = add_constant(graph, "token_axis", np.array([-1], np.int64))
    size = ir.node("Abs", [site.activation], name=f"{name}_size")
    largest = ir.node("ReduceMax", [size.outputs[0], axis], {"keepdims": 1}, name=f"{name}_largest")
    part = ir.node("Div", [site.activation, largest.outputs[0]], name=f"{name}_share")
    integers = ir.node("QuantizeLinear", [part.outputs[0], *_store_grid(graph)], name=f"{name}_rows")
    nodes = [size, largest, part, integers]
    for node in nodes:
        # Named here: a name that is made up for a branch may be taken outside of it.
        node.outputs[0].name = f"{node.name}_value"
    return nodes


def _multiply(graph: ir.Graph, site: Site, values: ir.Value, magnitude: ir.Value, bits: int) -> list[ir.Node]:
    name = site.linear.node
    weight, scale, zero = store_weight(graph, site, bits)
    step, offset = _store_grid(graph)
    inputs = [values, weight, step, scale, offset, zero]
    product = ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=f"{name}_int8")
    product.outputs[0].name = f"{product.name}_part"
    nodes = [product, ir.node("Mul", [product.outputs[0], magnitude], name=f"{name}_scaled")]
    if site.bias is not None:
        bias = add_constant(graph, f"{site.linear.weight}_bias", site.bias)
        nodes[-1].outputs[0].name = f"{nodes[-1].name}_value"
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias], name=f"{name}_biased"))
    return nodes


def _store_grid(graph: ir.Graph) -> tuple[ir.Value, ir.Value]:
    step = add_constant(graph, "token_step", np.array(1 / _LEVELS, np.float32))
    return step, add_constant(graph, "token_zero", np.array(_ZERO, np.uint8))
