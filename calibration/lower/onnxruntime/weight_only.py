"""Weight-only quantisation: weights in blocks of 8 or 4 bits, activations float (MatMulNBits).

Smaller files and less memory traffic; on a CPU the arithmetic is integer inside the kernel only at accuracy level 4
(activations quantised per block), which ONNX Runtime offers on every x86-64 and Arm CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from calibration.linears import Linear
from calibration.lower.edits import add_constant
from calibration.lower.onnxruntime.sites import Site, find_sites, replace_site, require_contrib

BLOCK = 32
INT8_ARITHMETIC = 4


def lower_weight_only(model: ir.Model, linears: Sequence[Linear], *, bits: int) -> None:
    """Edit ``model`` in place: the weights of ``linears`` are stored in ``bits`` (8 or 4), in blocks of 32 along K."""
    require_contrib(model)
    for site in find_sites(model, linears):
        packed, scales = pack_blocks(site.weight, bits=bits)
        name = f"{site.linear.weight}_b{bits}"
        bias = add_constant(model.graph, f"{site.linear.weight}_bias", site.bias) if site.bias is not None else None
        inputs: list[ir.Value | None] = [
            site.activation,
            add_constant(model.graph, name, packed),
            add_constant(model.graph, f"{name}_scale", scales),
        ]
        if bias is not None:
            inputs += [None, None, bias]
        replace_site(site, [_multiply(site, inputs, bits)])
    RemoveUnusedNodesPass()(model)


def pack_blocks(weight: NDArray[np.float32], *, bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise [K, N] symmetrically in blocks of 32 along K, as MatMulNBits stores it.

    Returns:
        (uint8 [N, blocks, 32 * bits / 8], two 4-bit values a byte with the lower index in the low half; float32 scales
        [N * blocks]). The implied zero point is ``2 ** (bits - 1)``.
    """
    depth, width = weight.shape
    blocks = -(-depth // BLOCK)
    padded = np.zeros((width, blocks * BLOCK), np.float32)
    padded[:, :depth] = weight.T
    grouped = padded.reshape(width, blocks, BLOCK)
    middle = 2 ** (bits - 1)
    # The value of largest magnitude maps to the lowest integer (-middle), so that all 2**bits levels are in use.
    peak = np.take_along_axis(grouped, np.abs(grouped).argmax(axis=2)[..., None], axis=2)
    scales = (-peak / middle).astype(np.float32)
    steps = np.where(scales == 0, np.float32(1), scales)
    levels = (np.clip(np.rint(grouped / steps), -middle, middle - 1) + middle).astype(np.uint8)
    if bits == 4:
        levels = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return levels, scales.reshape(-1)


def _multiply(site: Site, inputs: list[ir.Value | None], bits: int) -> ir.Node:
    depth, width = site.weight.shape
    attributes = {"K": depth, "N": width, "bits": bits, "block_size": BLOCK, "accuracy_level": INT8_ARITHMETIC}
    return ir.node("MatMulNBits", inputs, attributes, domain="com.microsoft", name=f"{site.linear.node}_w{bits}")
