"""How the weights of a decoder are rounded to blocks for a candidate.

In: a copy of the fused float graph, and what its linears are fed. Out: edits of a graph. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from calibration.weights.blocks import Bits, BlockFormat
from calibration.weights.plan import Method, WeightPlan, choose_accuracy
from exporter.candidates.linear_inputs import LinearInputs
from exporter.passes.decoder_weights import quantise_decoder, smooth_decoder
from runtimes.isa import Isa

#: What a decoder's linears are stored in, by the word for it.
BITS: dict[str, Bits] = {"weights-8": 8, "weights-4": 4, "weights-2": 2}
# Blocks of 8 bits are as accurate when longer, and multiplied with many rows in a fifth less time.
_BLOCK, _LONG_BLOCK = 32, 64
# The head and the look-up by token err in every token alike, and 8 bits of them are read once a token. In a small model
# they are most of its bytes.
TABLES = BlockFormat(bits=8, size=_LONG_BLOCK)
# Linears that a scale a token rounds too coarsely.
HARD = BlockFormat(bits=8, size=_LONG_BLOCK)
# As a share of the square of what they give.
LARGEST_ERROR = 6e-4
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
            linears=BlockFormat(bits=bits, size=_LONG_BLOCK if bits == 8 else _BLOCK, symmetric=bits == 8),
            tables=NARROW_TABLES if narrow_tables else TABLES,
            method=method,
            accuracy=choose_accuracy(self.isa),
        )
        quantise_decoder(model, plan, self.inputs.statistics if plan.needs_statistics else None)

    def prepare_tokens(self, model: ir.Model, *, smoothed: bool, float_layers: Collection[str]) -> None:
        """Edit ``model`` in place: what is left in float, but for the linears named, can be rounded token by token.

        Its head and its look-up go into blocks; where it is smoothed, so do linears whose inputs stay hard to round.
        """
        others: dict[str, BlockFormat | None] = dict.fromkeys(float_layers)
        if smoothed:
            errors = smooth_decoder(model, self.inputs.statistics, float_layers)
            others |= {node: HARD for node, error in errors.items() if error > LARGEST_ERROR}
        plan = WeightPlan(linears=None, tables=TABLES, accuracy=choose_accuracy(self.isa), others=others)
        quantise_decoder(model, plan)
