"""Anyone's ONNX file as the rules see it: functions written out, constants as initializers, types known.

In: a path. Out: an onnx_ir model, or an error with its cure. Must not import a runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes import common

from calibration.infer_types import fill_in_types
from exporter.passes.graph import opset
from exporter.passes.identities import remove_identities
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.onnx_file import locate_external_data, read_header

_CURE = "fetch or export the file again"
#: Before it, whatever is an initializer must be listed among the inputs.
_FIRST_IR = 4


def open_graph(path: Path) -> ir.Model:
    """Read the graph at ``path``, its weights beside it where they lie there.

    Raises:
        CorruptArtifact: there is no such file, it is no ONNX model, its weights are not beside it or cut short, or an
            operator lacks an input.
        UnsupportedModel: its operator set is unknown here, or a function in it cannot be written out.
    """
    locate_external_data(path, read_header(path).external)
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, TypeError, KeyError, ir.serde.SerdeError) as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise CorruptArtifact(f"not a readable ONNX model: {reason}", where=str(path), cure=_CURE) from error
    _require_known_opset(model, path)
    _require_weights(model, path)
    _require_inputs(model, path)
    _keep_constants(model)
    _write_out_functions(model, path)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    remove_identities(model)
    # Weights of any size: onnx_ir leaves them out of what it hands to ONNX's inference.
    fill_in_types(model, strict=False)
    return model


def _require_known_opset(model: ir.Model, path: Path) -> None:
    """What the operators of a later set mean is not known here: nothing found in it would mean nothing."""
    newest = onnx.defs.onnx_opset_version()
    if opset(model) > newest:
        raise UnsupportedModel(
            f"the graph is of opset {opset(model)}; the onnx package here knows {newest} at most",
            where=str(path),
            cure=f"export it with opset {newest} or older, or update onnx",
        )


def _require_weights(model: ir.Model, path: Path) -> None:
    """Weights are read when they are needed: what lies beside the file must be long enough by then."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor):
                continue
            end = (tensor.offset or 0) + tensor.nbytes
            if Path(tensor.path).stat().st_size < end:
                raise CorruptArtifact(
                    f"the external data of {name!r} ends before byte {end}", where=str(path), cure=_CURE
                )


def _require_inputs(model: ir.Model, path: Path) -> None:
    """Rules look at what an operator must have without asking whether it is there."""
    version = opset(model)
    for node in model.graph.all_nodes():
        if node.domain != "" or not onnx.defs.has(node.op_type, version, ""):
            continue
        needed = onnx.defs.get_schema(node.op_type, version, "").min_input
        if len(node.inputs) < needed or None in node.inputs[:needed] or not node.outputs:
            what = f"{node.op_type} {node.name or ''} reads {len(node.inputs)} values and needs {needed}"
            raise CorruptArtifact(what, where=str(path), cure=_CURE)


def _keep_constants(model: ir.Model) -> None:
    """Take constants for constants where they are listed as inputs too, as the first versions of the format wanted."""
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, _FIRST_IR)


def _write_out_functions(model: ir.Model, path: Path) -> None:
    if not model.functions:
        return
    try:
        common.InlinePass()(model)
    except (ValueError, ir.passes.PreconditionError) as error:
        raise UnsupportedModel(
            f"a function of the model cannot be written out: {error}",
            where=str(path),
            cure="inline it where the model is made (onnx.inliner.inline_local_functions)",
        ) from error
