"""Rounding as ONNX says it: QuantizeLinear and DequantizeLinear, for modules that are being exported.

In: float values and scales of a program under torch.export. Out: the same values behind Q and DQ. Imports torch.
"""

from __future__ import annotations

from typing import Any

import torch

#: The first operator set that has whole numbers of 4 bits, and scales for blocks.
FIRST_OPSET_OF_4_BITS = 21

_ONNX_INT4 = 22  # TensorProto.INT4, which is no type of torch


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


def _round(values: torch.Tensor, scale: torch.Tensor, bits: int, attributes: dict[str, Any]) -> torch.Tensor:
    if bits == 4:
        whole = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            (values, scale),
            {**attributes, "output_dtype": _ONNX_INT4},
            dtype=_ONNX_INT4,
            shape=values.shape,
        )
        constants: tuple[torch.Tensor, ...] = (scale,)
    else:
        constants = (scale, torch.zeros(scale.shape, dtype=torch.int8))
        whole = torch.onnx.ops.symbolic(
            "QuantizeLinear", (values, *constants), attributes, dtype=torch.int8, shape=values.shape
        )
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (whole, *constants), attributes, dtype=torch.float32, shape=values.shape
    )
