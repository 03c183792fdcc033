"""How the weights of a decoder are rounded to blocks for a candidate.

In: a copy of the fused float graph, and what its linears are fed. Out: edits of a graph. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from calibration.weights.blocks import Bits, BlockFormat
from calibration.weights.plan import Method, WeightPlan, choose_accuracy
from exporter.candidates.linear_inputs import LinearInputs
from exporter.passes.decoder_weights import quantise_decoder
from runtimes.isa import Isa

#: What a decoder's linears are stored in, by the word for it.
BITS: dict[str, Bits] = {"weights-8": 8, "weights-4": 4, "weights-2": 2}
_BLOCK = 32
# The head and the look-up by token err in every token alike, and 8 bits of them are read once a token. In a small model
# they are most of its bytes.
TABLES = BlockFormat(bits=8, size=_BLOCK)
NARROW_TABLES = BlockFormat(bits=4, size=_BLOCK, symmetric=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRounding:
    """Rounds for one export.

    Attributes:
        inputs: Of the fused float graph.
        isa: What the file is for.
    """

    inputs: LinearInputs
    isa: Isa

    @property
    def methods(self) -> tuple[Method, ...]:
        """The ways to round that there is data for."""
        return self.inputs.offer("rtn", "gptq", "awq")

    def round(self, model: ir.Model, arithmetic: str, method: Method, *, narrow_tables: bool = False) -> None:
        """Edit ``model``, a copy of the graph, in place; with ``narrow_tables``, head and look-up have 4 bits."""
        bits = BITS[arithmetic]
        plan = WeightPlan(
            # Few levels are worth a zero point a block: half a byte for 32 weights.
            linears=BlockFormat(bits=bits, size=_BLOCK, symmetric=bits == 8),
            tables=NARROW_TABLES if narrow_tables else TABLES,
            method=method,
            accuracy=choose_accuracy(self.isa),
        )
        quantise_decoder(model, plan, self.inputs.statistics if plan.needs_statistics else None)
