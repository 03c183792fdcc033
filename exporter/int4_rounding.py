"""How the weights of a candidate for TensorRT are rounded to 4 bits, and what its linears are fed, gathered once.

In: the prepared float graph and calibration data. Out: rounded matrices by node. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import onnx_ir as ir

from calibration.data import Dataset
from calibration.linears import Linear, find_linears
from calibration.weights.blocks import BlockFormat, Blocks, FloatArray
from calibration.weights.gptq import Curvature, round_gptq
from calibration.weights.inputs import InputStatistics, collect_inputs
from calibration.weights.plan import Method
from calibration.weights.rtn import round_to_nearest
from exporter.fuse import open_for_lowering
from exporter.passes.int4_weights import choose_block_size


@dataclass(frozen=True, kw_only=True)
class Int4Rounding:
    """Rounds for one export.

    Attributes:
        graph: The prepared float graph, whose names the statistics go by.
        data: To gather them on; None where there is none, and only ``rtn`` is to be had.
        directory: Where they are kept; it exists.
        threads: Of ONNX Runtime.
    """

    graph: Path
    data: Dataset | None
    directory: Path
    threads: int | None

    @property
    def methods(self) -> tuple[Method, ...]:
        """The ways to round that there is data for."""
        return ("rtn",) if self.data is None else ("rtn", "gptq")

    def round(self, model: ir.Model, linears: Sequence[Linear], method: Method) -> Mapping[str, Blocks]:
        """Return the weight of each linear in symmetric blocks of 4 bits; one of a width without blocks is left out."""
        rounded: dict[str, Blocks] = {}
        # Neighbours read the same: query, key and value, gate and up.
        for tensor, group in groupby(linears, key=lambda linear: linear.activation):
            curvature = Curvature.prepare(self._statistics.load(tensor).gram) if method == "gptq" else None
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

    @cached_property
    def _statistics(self) -> InputStatistics:
        data = self.data
        assert data is not None, "what needs statistics is offered only with data"
        wanted = tuple(dict.fromkeys(linear.activation for linear in find_linears(open_for_lowering(self.graph))))
        return collect_inputs(self.graph, data.batches, wanted, self.directory, threads=self.threads)
