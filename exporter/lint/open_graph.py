"""Anyone's ONNX file as the rules see it: functions written out, constants as initializers, types known.

In: a path. Out: an onnx_ir model, or an error with its cure. Must not import a runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes import common

from exporter.passes.graph import opset
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.onnx_file import locate_external_data, read_header


def open_graph(path: Path) -> ir.Model:
    """Read the graph at ``path``, its weights beside it where they lie there.

    Raises:
        CorruptArtifact: there is no such file, it is no ONNX model, or its weights are not beside it.
        UnsupportedModel: its operator set is unknown here, or a function in it cannot be written out.
    """
    locate_external_data(path, read_header(path).external)
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CorruptArtifact(
            f"not a readable ONNX model: {reason}", where=str(path), cure="fetch or export the file again"
        ) from error
    _require_known_opset(model, path)
    _write_out_functions(model, path)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    # Weights of any size: onnx_ir leaves them out of what it hands to ONNX's inference.
    common.ShapeInferencePass(strict_mode=False)(model)
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
