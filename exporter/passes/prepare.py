"""A foreign graph as every pass and every lowering expects it.

In: a graph as it was traced or brought. Out: the same, edited: constants as initializers, no functions and identities,
types and shapes known, nodes named. The names of the values that are left do not change.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from calibration.infer_types import can_serialise, infer_types
from exporter.passes.graph import opset
from exporter.passes.identities import remove_identities


def prepare(model: ir.Model, *, oldest_opset: int | None = None) -> None:
    """Edit ``model`` in place.

    Args:
        model: Any ONNX graph. Past 2 GB its opset and its types stay as they are: neither tool takes so much.
        oldest_opset: What an older graph is converted to; None leaves it.
    """
    imports = model.graph.opset_imports
    if "ai.onnx" in imports:  # the default set by its other name
        imports.setdefault("", imports.pop("ai.onnx"))
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass()(model)
    remove_identities(model)
    if not can_serialise(model):
        return
    if oldest_opset is not None and opset(model) < oldest_opset:
        from onnxscript.version_converter import convert_version

        convert_version(model, oldest_opset)
    infer_types(model)


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own, in branches too: plans and lowering speak of nodes by name.

    A value gets another one where it had that of a value seen from where it is.
    """
    common.NameFixPass()(model)
    # The pass lets nodes of different graphs have one name.
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        name, number = node.name, 1
        while node.name in taken:
            number += 1
            node.name = f"{name}_{number}"
        taken.add(node.name or "")
