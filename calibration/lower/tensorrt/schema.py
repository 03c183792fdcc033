"""What types an operator takes and gives, read from ONNX's own schemas. Must not import a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import onnx_ir as ir

_WORDS = {
    ir.DataType.FLOAT: "tensor(float)",
    ir.DataType.FLOAT16: "tensor(float16)",
    ir.DataType.BFLOAT16: "tensor(bfloat16)",
}
#: Outputs whose type is that of an input although the schema gives them a type of their own (output_dtype).
_FOLLOWS = {"DequantizeLinear": 1}
#: Attributes that say the type of the output.
SETS_TYPE = {"Cast": "to", "ConstantOfShape": "value"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formals:
    """Type variables of inputs and outputs, and which of them may be of a type; the last may repeat."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    narrow: frozenset[str]
    wide: frozenset[str]

    def takes(self, index: int) -> bool:
        """Whether the input, float32 now, may be of the narrow type."""
        return _at(self.inputs, index) in self.narrow

    def gives(self, index: int) -> bool:
        """Whether the output, float32 now, gets the narrow type when the inputs that may have it do."""
        variable = _at(self.outputs, index)
        return variable in self.narrow and variable in self.wide and variable in self.inputs


@cache
def read_formals(op_type: str, opset: int, kind: ir.DataType) -> Formals | None:
    """Return the formals of a standard operator, or None where ONNX has no such operator."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    allowed = {part.type_param_str: frozenset(part.allowed_type_strs) for part in schema.type_constraints}
    inputs = tuple(part.type_str for part in schema.inputs)
    outputs = tuple(part.type_str for part in schema.outputs)
    if op_type in _FOLLOWS:
        outputs = (inputs[_FOLLOWS[op_type]],)
    return Formals(
        inputs=inputs,
        outputs=outputs,
        narrow=frozenset(name for name, types in allowed.items() if _WORDS[kind] in types),
        wide=frozenset(name for name, types in allowed.items() if _WORDS[ir.DataType.FLOAT] in types),
    )


def _at(formals: tuple[str, ...], index: int) -> str:
    return formals[min(index, len(formals) - 1)] if formals else ""
