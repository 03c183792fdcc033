"""A float graph in the shape ONNX Runtime's CPU kernels run fastest.

In: a traced ONNX file. Out: another ONNX file with the same inputs and outputs, and what was changed. The passes are
in exporter/passes, one edit each; this module only says which, in which order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import remove_dead
from exporter.passes.attention import FIRST_OPSET, compose_attention, flatten_attention
from exporter.passes.cached_attention import fuse_attention, fuse_rotary
from exporter.passes.gather_integers import gather_integers
from exporter.passes.last_logits import keep_last_logits
from exporter.passes.merge_linears import merge_linears
from exporter.passes.padding_mask import shorten_mask
from exporter.passes.prepare import name_nodes, prepare
from exporter.passes.rms_norm import fuse_rms_norm
from exporter.passes.separate_norm import separate_norm
from exporter.passes.spell_out_int4 import spell_out_int4
from exporter.passes.store_integers import store_integers
from exporter.passes.undo_rounding import undo_rounding
from exporter.passes.unsigned_weights import make_unsigned
from exporter.tolerances import read_tolerance
from exporter.write_model import write_model
from runtimes.artifact import Artifact
from runtimes.generation.cache_spec import find_cache
from runtimes.generation.feeds import blank_padding
from runtimes.ort import OnnxRuntime, describe_onnx
from runtimes.parity import compare, require

#: The step that gives a decoder ONNX Runtime's own attention over a cache.
FUSED_ATTENTION = "attention over a cache fused"
#: The step that makes linears float again which were trained with their rounding.
UNROUNDED = "linears unrounded"
#: The step that makes one linear of those that read the same tensor.
MERGED = "linears merged"


def fuse_for_cpu(
    source: Path, out: Path, *, merged: bool, unsigned: bool, unrounded: bool = False
) -> Mapping[str, int]:
    """Write the fused form of ``source`` to ``out`` and return how often each pass applied.

    Args:
        source: A float ONNX model.
        out: The file to write, in an existing directory.
        merged: Also merge linears that read the same tensor.
        unsigned: Store int8 weights that the model brought as uint8, for CPUs that saturate uint8 x int8 products.
        unrounded: Take out the rounding of linears that the model was trained with.
    """
    model = ir.load(source)
    # Before functions are inlined, while attention over a cache is still one node.
    steps = {"rotary positions fused": fuse_rotary(model), FUSED_ATTENTION: fuse_attention(model)}
    prepare(model, oldest_opset=FIRST_OPSET)
    applied = {
        **steps,
        "weights stored as integers": store_integers(model),
        "tables looked up as integers": gather_integers(model),
        "4-bit weights spelled out": spell_out_int4(model),
        UNROUNDED: undo_rounding(model) if unrounded else 0,
        "weights made unsigned": make_unsigned(model) if unsigned else 0,
        "attention composed": compose_attention(model),
        "attention flattened": flatten_attention(model),
        "masks shortened": shorten_mask(model),
        "norms kept apart": separate_norm(model),
        "root mean square norms fused": fuse_rms_norm(model),
        MERGED: merge_linears(model) if merged else 0,
        "heads that read the last token": int(keep_last_logits(model)),
    }
    remove_dead(model)
    name_nodes(model)
    write_model(model, out)
    return applied


def require_equal(
    traced: Artifact, fused: Collection[Path], batches: Sequence[Mapping[str, NDArray[np.generic]]]
) -> None:
    """Run a graph, and each form that was made of it, on every batch.

    Raises:
        ParityFailure: they differ by more than ``traced-to-fused`` allows, or where the graph itself rounds
            ``fake-quantised-to-onnx``, which is an error of a pass.
    """
    cache = find_cache(traced.inputs)
    exact = "traced-to-fused" if cache is None else "decoder-to-onnx"
    tolerance = read_tolerance("fake-quantised-to-onnx" if holds(traced.path, "QuantizeLinear") else exact)
    runtime = OnnxRuntime()
    with closing(runtime.open(traced)) as before:
        expected = [before.run(feeds) for feeds in batches]
    for path in fused:
        with closing(runtime.open(describe_onnx(path))) as after:
            for feeds, wanted in zip(batches, expected, strict=True):
                pair = wanted, after.run(feeds)
                if cache is not None:
                    pair = blank_padding(cache, feeds, pair[0]), blank_padding(cache, feeds, pair[1])
                require(compare(*pair, tolerance))


def holds(path: Path, op_type: str) -> bool:
    """Whether a graph has an operator, in branches too."""
    return any(node.op_type == op_type for node in ir.load(path).graph.all_nodes())
