"""The float graph that candidates for TensorRT are lowered from.

In: a traced ONNX file. Out: another one with the same inputs, outputs and arithmetic. Attention, GELU and layer norms
stay as they were traced: TensorRT fuses by patterns of its own, and what ONNX Runtime's CPU likes is in their way.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from calibration.lower.edits import remove_dead
from calibration.lower.tensorrt.types import FIRST_OPSET
from exporter.passes.int4_weights import FIRST_OPSET as FIRST_OPSET_OF_INT4
from exporter.passes.packed_weights import find_few_levels
from exporter.passes.prepare import name_nodes, prepare
from exporter.write_model import write_model


def prepare_for_tensorrt(traced: Path, out: Path, *, int4: bool = False) -> Path:
    """Write the graph to ``out``, in an existing directory, and return the path: types known, opset 19 or later.

    Opset 21 where weights have few levels, which 4 bits hold, or where ``int4`` says that any may be rounded to them.
    """
    model = ir.load(traced)
    takes_int4 = int4 or bool(find_few_levels(model))
    prepare(model, oldest_opset=FIRST_OPSET_OF_INT4 if takes_int4 else FIRST_OPSET)
    # Scalars too: which type a constant has is decided where it is read.
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    remove_dead(model)
    name_nodes(model)
    return write_model(model, out)
