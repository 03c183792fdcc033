"""Writes a graph to a file, or to two where one would be too large.

In: a graph in memory. Out: its path. Must not import torch.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from runtimes.errors import UnsupportedModel

# A protobuf message ends at 2**31 bytes; the graph around the weights stays far below the difference.
_INLINE_LIMIT_BYTES = 2_000_000_000


def write_model(model: ir.Model, path: Path) -> Path:
    """Write ``model`` to ``path``, its weights beside it as ``<name>.data`` where one file would pass 2 GB.

    Raises:
        UnsupportedModel: something in it cannot be written down, such as a name that is no text.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    try:
        if size > _INLINE_LIMIT_BYTES:
            ir.save(model, path, external_data=f"{path.name}.data")
        else:
            # Weights that lie in a file beside the source would be written as a reference to it.
            ir.save(ir.external_data.load_to_model(model), path)
    except ir.serde.SerdeError as error:
        raise UnsupportedModel(
            f"the graph cannot be written: {error.__cause__ or error}", where=str(path), cure="export the model again"
        ) from error
    return path
