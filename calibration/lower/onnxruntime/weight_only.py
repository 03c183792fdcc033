"""Weight-only quantisation: weights in blocks of few bits, activations float (MatMulNBits).

Smaller files and less memory traffic; on a CPU the arithmetic is integer inside the kernel only at accuracy level 4
(activations quantised per block), which ONNX Runtime offers on every x86-64 and Arm CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from calibration.linears import Linear
from calibration.lower.edits import add_constant
from calibration.lower.onnxruntime.sites import Site, find_sites, replace_site, require_contrib
from calibration.weights.blocks import Bits, BlockFormat, Blocks
from calibration.weights.plan import INT8_ARITHMETIC
from calibration.weights.rtn import round_to_nearest

BLOCK = 32


def lower_weight_only(model: ir.Model, linears: Sequence[Linear], *, bits: Bits) -> None:
    """Edit ``model`` in place: the weights of ``linears`` are stored in ``bits``, in blocks of 32 along K."""
    require_contrib(model)
    layout = BlockFormat(bits=bits, size=BLOCK)
    for site in find_sites(model, linears):
        place_blocks(model, site, round_to_nearest(site.weight.T, layout), accuracy=INT8_ARITHMETIC)
    RemoveUnusedNodesPass()(model)


def place_blocks(model: ir.Model, site: Site, blocks: Blocks, *, accuracy: int) -> None:
    """Let the linear multiply with ``blocks``, its weight turned and rounded; the float node is left to the caller."""
    layout, (depth, width) = blocks.format, site.weight.shape
    weight, steps, zeros = store_blocks(model.graph, site.linear.weight, blocks)
    inputs: list[ir.Value | None] = [site.activation, weight, steps, zeros]
    if site.bias is not None:
        inputs += [None, add_constant(model.graph, f"{site.linear.weight}_bias", site.bias)]
    attributes = {"K": depth, "N": width, "bits": layout.bits, "block_size": layout.size, "accuracy_level": accuracy}
    name = f"{site.linear.node}_w{layout.bits}"
    replace_site(site, [ir.node("MatMulNBits", inputs, attributes, domain="com.microsoft", name=name)])


def store_blocks(graph: ir.Graph, weight: str, blocks: Blocks) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Register the packed levels, the steps and the zero points of ``weight``, if it has any."""
    name = f"{weight}_b{blocks.format.bits}"
    packed_zeros = blocks.pack_zeros()
    return (
        add_constant(graph, name, blocks.pack()),
        add_constant(graph, f"{name}_scale", blocks.grid.steps.astype(np.float32)),
        add_constant(graph, f"{name}_zero", packed_zeros) if packed_zeros is not None else None,
    )
