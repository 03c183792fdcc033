"""Random inputs to compare two forms of a graph on.

In: what a model takes, and its graph. Out: a batch for each shape. Must not import a runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.lint.pairs import MOVES
from exporter.probe_feeds import make_feeds, usable_shapes
from runtimes.artifact import TensorSpec

Feeds = Mapping[str, NDArray[np.generic]]

#: (batch, sequence).
SHAPES = ((1, 16), (3, 9))
#: Token ids below this are in every vocabulary met, where the graph does not say how large its own is.
USUAL_VOCABULARY = 1000


def make_batches(specs: Sequence[TensorSpec], vocabularies: Mapping[str, int]) -> list[Feeds]:
    """Return a batch for each of :data:`SHAPES` that differs for these inputs; axes that are fixed stay as they are."""
    batches: list[Feeds] = []
    for batch, sequence in usable_shapes(specs, SHAPES):
        feeds: dict[str, NDArray[np.generic]] = {}
        for number, spec in enumerate(specs):
            first = spec.shape[0] if spec.shape else batch
            shape = (first if isinstance(first, int) else batch, sequence)
            vocabulary = vocabularies.get(spec.name, USUAL_VOCABULARY)
            feeds |= make_feeds((spec,), shape, vocabulary=vocabulary, seed=number)
        batches.append(feeds)
    return batches


def find_vocabularies(model: ir.Model) -> dict[str, int]:
    """Return for each input that chooses rows of a table how many there are."""
    found = {}
    for value in model.graph.inputs:
        rows = list(_list_rows(value))
        if rows and value.name:
            found[value.name] = min(rows)
    return found


def _list_rows(ids: ir.Value) -> Iterator[int]:
    """Yield the rows of each table that integers choose from, through moves and casts."""
    for use in ids.uses():
        node = use.node
        if node.op_type == "Gather" and use.idx == 1 and not node.attributes.get_int("axis", 0):
            shape = node.inputs[0].shape if node.inputs[0] is not None else None
            rows = shape[0] if shape is not None and len(shape) else None
            if isinstance(rows, int) and rows > 0:
                yield rows
        elif use.idx == 0 and (node.op_type in MOVES or node.op_type == "Cast"):
            for output in node.outputs:
                yield from _list_rows(output)
