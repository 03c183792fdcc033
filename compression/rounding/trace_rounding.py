"""Rounding as ONNX says it: QuantizeLinear and DequantizeLinear, for modules that are being exported.

In: float values and scales of a program under torch.export. Out: the same values behind Q and DQ. Imports torch.
"""

from __future__ import annotations

from enum import IntEnum

import torch
import torch.onnx.ops  # declares the operator that stands for any of ONNX

#: The first operator set that has whole numbers of 4 bits, and scales for blocks.
FIRST_OPSET_OF_4_BITS = 21


class TensorType(IntEnum):
    """Types of ONNX by their numbers in ``TensorProto``; the one of 4 bits is no type of torch."""

    FLOAT = 1
    INT8 = 3
    INT4 = 22


def trace_input(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Round an input with one scale [] to int8 and back."""
    return _round(values, scale, 8, {"axis": 0})  # with one scale the axis has no meaning


def trace_rows(rows: torch.Tensor, scale: torch.Tensor, bits: int, *, turned: bool = False) -> torch.Tensor:
    """Round the rows of a constant.

    Args:
        rows: float [rows, width].
        scale: float [rows], or [rows, blocks] where parts of a row have their own.
        bits: 8 or 4.
        turned: Whether to give float [width, rows], so that a plain MatMul reads it. The constant is turned before it
            is rounded: the graph then holds Q, DQ and the MatMul, nothing between them.
    """
    if scale.dim() == 1:
        return _round(rows.t() if turned else rows, scale, bits, {"axis": int(turned)})
    attributes = {"axis": int(not turned), "block_size": rows.shape[1] // scale.shape[1]}
    return _round(rows.t(), scale.t(), bits, attributes) if turned else _round(rows, scale, bits, attributes)


def _round(values: torch.Tensor, scale: torch.Tensor, bits: int, attributes: dict[str, int]) -> torch.Tensor:
    if bits == 4:
        constants: tuple[torch.Tensor, ...] = (scale,)
        said = {**attributes, "output_dtype": TensorType.INT4}
        whole = _emit("QuantizeLinear", (values, scale), said, TensorType.INT4, values.shape)
    else:
        constants = (scale, torch.zeros(scale.shape, dtype=torch.int8))
        whole = _emit("QuantizeLinear", (values, *constants), attributes, TensorType.INT8, values.shape)
    return _emit("DequantizeLinear", (whole, *constants), attributes, TensorType.FLOAT, values.shape)


def _emit(
    name: str, inputs: tuple[torch.Tensor, ...], attributes: dict[str, int], dtype: TensorType, shape: torch.Size
) -> torch.Tensor:
    """Write one ONNX node, as ``torch.onnx.ops.symbolic`` does; that one cannot be called in a branch of torch.cond."""
    made: torch.Tensor = torch.ops.onnx_symbolic._symbolic(
        list(inputs),
        name,
        int(dtype),
        shape=list(shape),
        attr_keys=list(attributes),
        attr_types=["i"] * len(attributes),
        attr_pos=[[place, place + 1] for place in range(len(attributes))],
        attr_ints=[int(value) for value in attributes.values()],
        attr_floats=[],
        attr_strs=[],
        metadata_props_keys=[],
        metadata_props_values=[],
    )
    return made
