"""Dynamic INT8: activations quantised as they come (uint8, per tensor), weights int8 per output channel.

The kernels are ONNX Runtime's DynamicQuantizeMatMul and, where several linears share an activation, one
DynamicQuantizeLinear with a MatMulIntegerToFloat each, so that the activation is quantised once. Both add the bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from calibration.linears import Linear
from calibration.lower.edits import add_constant
from calibration.lower.onnxruntime.sites import Site, find_sites, replace_site, require_contrib
from calibration.quantise import quantise_weight

CONTRIB = "com.microsoft"


def lower_dynamic(model: ir.Model, linears: Sequence[Linear], *, weight_bits: int) -> None:
    """Edit ``model`` in place: ``linears`` run in dynamic INT8.

    Args:
        model: A float model; its other nodes stay as they are.
        linears: MatMul and Gemm layers to lower, those of branches too.
        weight_bits: 8, or 7 where the CPU adds two uint8 x int8 products in 16 bits (255 * 64 * 2 < 32768).
    """
    require_contrib(model)
    sites = find_sites(model, linears)
    # A branch that does not run computes nothing for the rest of the graph.
    readers = Counter((site.node.graph, site.linear.activation) for site in sites)
    shared: dict[tuple[ir.Graph | None, ir.Value], ir.Node] = {}
    for site in sites:
        weight, scale, zero = store_weight(model.graph, site, weight_bits)
        bias = add_constant(model.graph, f"{site.linear.weight}_bias", site.bias) if site.bias is not None else None
        if readers[site.node.graph, site.linear.activation] == 1:
            inputs = [site.activation, weight, scale, zero, bias]
            node = ir.node("DynamicQuantizeMatMul", inputs, domain=CONTRIB, name=f"{site.linear.node}_int8")
            replace_site(site, [node])
            continue
        read = (site.node.graph, site.activation)
        quantise = shared.get(read)
        new = []
        if quantise is None:
            quantise = ir.node("DynamicQuantizeLinear", [site.activation], num_outputs=3, name=f"{site.linear.node}_q")
            # Named here: a name that is made up for a branch may be taken outside of it.
            for output, what in zip(quantise.outputs, ("value", "step", "offset"), strict=True):
                output.name = f"{quantise.name}_{what}"
            shared[read] = quantise
            new.append(quantise)
        value, step, offset = quantise.outputs
        inputs = [value, weight, step, scale, offset, zero, bias]
        new.append(ir.node("MatMulIntegerToFloat", inputs, domain=CONTRIB, name=f"{site.linear.node}_int8"))
        replace_site(site, new)
    RemoveUnusedNodesPass()(model)


def store_weight(graph: ir.Graph, site: Site, bits: int) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Register the integers [K, N], the scales [N] and the zero points [N] of the weight of a linear."""
    values, scale, zero = quantise_weight(site.weight, axis=1, bits=bits)
    name = f"{site.linear.weight}_q{bits}"
    return (
        add_constant(graph, name, values),
        add_constant(graph, f"{name}_scale", scale),
        add_constant(graph, f"{name}_zero", zero),
    )
