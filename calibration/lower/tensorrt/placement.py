"""Which linears are worth int8 on a GPU, and why the others are not.

After what NVIDIA ModelOpt leaves out (modelopt/onnx/quantization, 0.40): convolutions with few channels and products
with a vector are bound by memory, and their quantise kernels cost more than the product saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from calibration.linears import Linear

FEWEST_CHANNELS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """``quantised`` in graph order; ``left`` maps the other nodes to the reason."""

    quantised: tuple[Linear, ...]
    left: Mapping[str, str]


def place(model: ir.Model, linears: Sequence[Linear]) -> Placement:
    """Divide ``linears`` of ``model`` into those to quantise and those to leave."""
    left = {linear.node: why for linear in linears if (why := _object(model, linear)) is not None}
    return Placement(quantised=tuple(linear for linear in linears if linear.node not in left), left=left)


def _object(model: ir.Model, linear: Linear) -> str | None:
    inputs, outputs = linear.shape
    if linear.kind == "Conv":
        weight = model.graph.initializers[linear.weight].const_value
        inputs = int(weight.shape[1]) if weight is not None else inputs
    if outputs == 1:
        return "it gives one value a row: bound by memory"
    if min(inputs, outputs) < FEWEST_CHANNELS:
        return f"{inputs} inputs and {outputs} outputs: int8 pays from {FEWEST_CHANNELS}"
    return None
