"""How the weights of a decoder are rounded to blocks for a candidate, and what its linears are fed, gathered once.

In: the fused float graph and calibration data. Out: edits of a graph. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from calibration.data import Dataset
from calibration.weights.blocks import Bits, BlockFormat
from calibration.weights.inputs import InputStatistics, collect_inputs
from calibration.weights.plan import Method, WeightPlan, choose_accuracy
from exporter.passes.decoder_weights import list_inputs, quantise_decoder
from runtimes.isa import Isa

#: What a decoder's linears are stored in, by the word for it.
BITS: dict[str, Bits] = {"weights-8": 8, "weights-4": 4, "weights-2": 2}
# The head and the look-up by token err in every token alike, and 8 bits of them are read once a token.
_TABLES = BlockFormat(bits=8, size=32)
_BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class BlockRounding:
    """Rounds for one export.

    Attributes:
        graph: The fused float graph, whose names the statistics go by.
        data: To gather them on; None where there is none, and only ``rtn`` is to be had.
        directory: Where they are kept; it exists.
        isa: What the file is for.
        threads: Of ONNX Runtime.
    """

    graph: Path
    data: Dataset | None
    directory: Path
    isa: Isa
    threads: int | None

    @property
    def methods(self) -> tuple[Method, ...]:
        """The ways to round that there is data for."""
        return ("rtn",) if self.data is None else ("rtn", "gptq", "awq")

    def round(self, model: ir.Model, arithmetic: str, method: Method) -> None:
        """Edit ``model``, a copy of the graph, in place."""
        bits = BITS[arithmetic]
        plan = WeightPlan(
            # Few levels are worth a zero point a block: half a byte for 32 weights.
            linears=BlockFormat(bits=bits, size=_BLOCK, symmetric=bits == 8),
            tables=_TABLES,
            method=method,
            accuracy=choose_accuracy(self.isa),
        )
        quantise_decoder(model, plan, self._statistics if plan.needs_statistics else None)

    @cached_property
    def _statistics(self) -> InputStatistics:
        data = self.data
        assert data is not None, "what needs statistics is offered only with data"
        wanted = list_inputs(ir.load(self.graph))
        return collect_inputs(self.graph, data.batches, wanted, self.directory, threads=self.threads)
