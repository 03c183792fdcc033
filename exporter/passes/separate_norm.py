"""Keep the residual addition and the LayerNormalization after it apart.

ONNX Runtime fuses the two into SkipLayerNormalization, whose CPU kernel is slower than its parts: without it MiniLM is
1.06 to 1.11 times as fast in float and 1.1 to 1.3 in dynamic INT8 (docs/benchmarks.md). A model file cannot switch an
optimizer off, but ``Sum`` of two inputs means the same as ``Add`` and is not fused.
"""

from __future__ import annotations

import onnx_ir as ir

from calibration.lower.edits import take_over
from exporter.passes.graph import constant, made_by


def separate_norm(model: ir.Model) -> int:
    """Turn each ``Add`` of two computed tensors before a LayerNormalization into ``Sum``; return how many."""
    changed = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type != "LayerNormalization":
            continue
        add = made_by(node.inputs[0], "Add")
        if add is None or add.graph is None or any(constant(value) is not None for value in add.inputs):
            continue
        total = ir.node("Sum", list(add.inputs), name=add.name)
        add.graph.insert_before(add, total)
        take_over(add.outputs[0], total.outputs[0])
        add.graph.remove(add, safe=True)
        changed += 1
    return changed
