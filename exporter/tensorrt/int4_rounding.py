"""How the weights of a candidate for TensorRT are rounded to 4 bits.

In: the prepared float graph, and what its linears are fed. Out: rounded matrices by node. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import onnx_ir as ir

from calibration.linears import Linear
from calibration.weights.blocks import BlockFormat, Blocks, FloatArray
from calibration.weights.gptq import Curvature, round_gptq
from calibration.weights.plan import Method
from calibration.weights.rtn import round_to_nearest
from exporter.candidates.linear_inputs import LinearInputs
from exporter.passes.int4_weights import choose_block_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Int4Rounding:
    """Rounds for one export.

    Attributes:
        inputs: Of the prepared float graph.
    """

    inputs: LinearInputs

    @property
    def methods(self) -> tuple[Method, ...]:
        """The ways to round that there is data for."""
        return self.inputs.offer("rtn", "gptq")

    def round(self, model: ir.Model, linears: Sequence[Linear], method: Method) -> Mapping[str, Blocks]:
        """Return the weight of each linear in symmetric blocks of 4 bits; one of a width without blocks is left out."""
        rounded: dict[str, Blocks] = {}
        # Neighbours read the same: query, key and value, gate and up.
        for tensor, group in groupby(linears, key=lambda linear: linear.activation):
            curvature = Curvature.prepare(self.inputs.statistics.load(tensor).gram) if method == "gptq" else None
            for linear in group:
                size = choose_block_size(linear.shape[0]) if linear.kind != "Conv" else None
                weight = model.graph.initializers[linear.weight].const_value
                if size is None or weight is None:
                    continue
                rows: FloatArray = weight.numpy() if linear.transposed else weight.numpy().T
                layout = BlockFormat(bits=4, size=size, positive=True)
                rounded[linear.node] = (
                    round_to_nearest(rows, layout) if curvature is None else round_gptq(rows, layout, curvature)
                )
        return rounded
