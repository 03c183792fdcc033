"""What becomes of the weights of a decoder: plain data.

In: choices. Out: a :class:`WeightPlan`. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from calibration.weights.blocks import BlockFormat
from calibration.weights.gptq import DAMPING
from runtimes.isa import Isa

Method = Literal["rtn", "gptq", "awq"]

# Accuracy levels of MatMulNBits: activations stay float32, or are rounded to int8, a block of a row at a time.
FLOAT_ARITHMETIC, INT8_ARITHMETIC = 1, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """How each matrix of a decoder is stored, and how it is rounded.

    Attributes:
        linears: The form of the linear layers; None leaves them in float.
        tables: The form of what is looked up by token, and of the head, which often is the same matrix; None leaves
            both in float.
        method: ``rtn`` rounds each weight by itself, ``gptq`` lets later weights make up for earlier ones, ``awq``
            scales up the inputs that matter. The last two need statistics of the inputs.
        accuracy: The accuracy level of MatMulNBits; see :func:`choose_accuracy`.
        ordered: Whether ``gptq`` starts with the inputs that matter most.
        damping: What ``gptq`` adds to the mean square of every input, as a share of their mean.
        others: Linears, by the name of their node, that are stored in another form; None leaves one, or the head, in
            float.
    """

    linears: BlockFormat | None
    tables: BlockFormat | None
    method: Method = "rtn"
    accuracy: int = INT8_ARITHMETIC
    ordered: bool = True
    damping: float = DAMPING
    others: Mapping[str, BlockFormat | None] = field(default_factory=dict)

    @property
    def needs_statistics(self) -> bool:
        """Whether rounding looks at what the linears are fed."""
        return self.method != "rtn"

    def find_format(self, node: str) -> BlockFormat | None:
        """Return the form of one linear; None where it stays in float."""
        return self.others.get(node, self.linears)


def choose_accuracy(isa: Isa) -> int:
    """Return the accuracy level that a CPU's kernels compute in.

    MLAS multiplies blocks in int8 from AVX2 on, and on Arm with dot products (qnbitgemm.cpp, one dispatch table an
    instruction set; no product of theirs saturates: tests/parity/test_other_cpus.py). Elsewhere it takes float32
    whatever the level says, and so does the file on every CPU.
    """
    return FLOAT_ARITHMETIC if isa.level in {"baseline", "neon"} else INT8_ARITHMETIC
