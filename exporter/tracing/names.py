"""Give a traced graph the names people know: axes, nodes and weights; store tied weights once.

In: an onnx_ir model. Edits it in place. Must not import torch.

The exporter names axes ``s18``, nodes ``node_MatMul_46`` and transposed weights ``val_45``; what is printed about a
layer later should say ``encoder.layer.0.attention.self.query``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from runtimes.generation.cache_spec import BATCH, IDS, MASK, PAST, POSITIONS, SEQUENCE, TOTAL, CacheSpec

#: Where torch notes the modules that a node was traced in.
SCOPES = "pkg.torch.onnx.name_scopes"
# What torch writes where a node belongs to no module.
_NO_MODULE = "_empty_nn_module_stack"
_FOLDED_NAME = re.compile(r"val_\d+|t_\d+|t|permute(_\d+)?|numpy_t(_\d+)?")
_WEIGHTED = {"MatMul", "Gemm", "Conv"}
# Below this a second copy costs less than a node.
_TIED_MIN_BYTES = 1024


def name_axes(model: ir.Model) -> None:
    """Call the first dynamic axis of the inputs ``batch`` and the second of integer matrices ``sequence``.

    Other dynamic axes keep their names; axes inside the graph follow the inputs they come from.
    """
    renamed: dict[str, str] = {}
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        shape = list(value.shape.dims)
        for axis, name in _list_renamed(value):
            if (old := getattr(shape[axis], "value", None)) is not None:
                renamed.setdefault(str(old), name)
            shape[axis] = ir.SymbolicDim(name)
        value.shape = ir.Shape(shape)
    pattern = re.compile("|".join(rf"\b{re.escape(old)}\b" for old in renamed)) if renamed else None
    for value in _iterate_values(model.graph):
        if pattern is not None and value.shape is not None:
            value.shape = ir.Shape([_rename_dim(dim, renamed, pattern) for dim in value.shape.dims])


def _list_renamed(value: ir.Value) -> Iterator[tuple[int, str]]:
    shape = value.shape or ()
    is_tokens = len(shape) == 2 and value.dtype in {ir.DataType.INT64, ir.DataType.INT32}
    for axis, dim in enumerate(shape):
        if isinstance(dim, ir.SymbolicDim) and (axis == 0 or (axis == 1 and is_tokens)):
            yield axis, BATCH if axis == 0 else SEQUENCE


def _iterate_values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.outputs
    for node in graph.all_nodes():
        yield from node.outputs


def _rename_dim(dim: int | ir.SymbolicDim, renamed: dict[str, str], pattern: re.Pattern[str]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    return ir.SymbolicDim(pattern.sub(lambda found: renamed[found[0]], str(dim.value)))


def name_decoder_axes(model: ir.Model, cache: CacheSpec) -> None:
    """Call the axes of a decoder, whose first output is its logits, as :mod:`runtimes.generation.cache_spec` does."""
    tokens = {IDS: (BATCH, SEQUENCE), MASK: (BATCH, TOTAL), POSITIONS: (BATCH, SEQUENCE)}
    for value in model.graph.inputs:
        value.shape = ir.Shape(tokens.get(str(value.name), (BATCH, cache.kv_heads, PAST, cache.head_dim)))
    logits, *present = model.graph.outputs
    logits.shape = ir.Shape((BATCH, SEQUENCE, logits.shape[2] if logits.shape is not None else None))
    for value in present:
        value.shape = ir.Shape((BATCH, cache.kv_heads, TOTAL, cache.head_dim))


def name_nodes(model: ir.Model) -> None:
    """Name nodes ``<module path>/<operator>``, folded weights ``<module path>.weight``, and drop the exporter's notes.

    The notes (a stack trace for every node) are larger than the graph itself. Nodes without notes keep their names.
    """
    _name_within(model.graph, model.graph, "model", set())
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()


def _name_within(main: ir.Graph, graph: ir.Graph, outside: str, taken: set[str]) -> None:
    """Name the nodes of a graph; those of a branch that say no module are in the module ``outside`` of it."""
    for node in graph:
        path = _read_module_path(node, outside)
        if path is None:
            taken.add(node.name or "")
        else:
            _name_folded_weight(main, node, path)
            _name_node(node, f"{path}/{node.op_type}", taken)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _name_within(main, attribute.as_graph(), path or outside, taken)


def _name_node(node: ir.Node, wanted: str, taken: set[str]) -> None:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    node.name = name


def _read_module_path(node: ir.Node, outside: str) -> str | None:
    scopes = node.metadata_props.get(SCOPES)
    if scopes is None:
        return None
    names = [name for name in ast.literal_eval(scopes)[:-1] if name and not name.startswith(_NO_MODULE)]
    return names[-1] if names else outside


def _name_folded_weight(graph: ir.Graph, node: ir.Node, path: str) -> None:
    if node.op_type not in _WEIGHTED or len(node.inputs) < 2:
        return
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or not _FOLDED_NAME.fullmatch(weight.name or ""):
        return
    name = f"{path}.weight"
    if name not in graph.initializers and weight.const_value is not None:
        weight.name = name
        weight.const_value.name = name


def share_tied_weights(model: ir.Model) -> None:
    """Store a weight once where the graph holds it twice, as it is or transposed.

    A masked LM's decoder is the transpose of its embeddings; the exporter folds the transpose into a copy. It becomes
    a ``Transpose`` of the one stored, which runtimes fold when they load.
    """
    graph = model.graph
    groups: dict[tuple[object, ...], list[ir.Value]] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _TIED_MIN_BYTES:
            continue
        array = tensor.numpy()
        # A matrix and its transpose have one diagonal, which is quick to compare.
        few = np.diagonal(array) if array.ndim == 2 else array.ravel()[:64]
        group = groups.setdefault((tensor.dtype, tuple(sorted(array.shape)), few.tobytes()), [])
        if not any(_replace_copy(graph, value, array, kept) for kept in group):
            group.append(value)


def _replace_copy(graph: ir.Graph, copy: ir.Value, array: NDArray[np.generic], kept: ir.Value) -> bool:
    """Let ``kept`` stand for ``copy`` where it holds the same numbers, in the same order or transposed."""
    assert kept.const_value is not None
    original = kept.const_value.numpy()
    if np.array_equal(original, array):
        copy.replace_all_uses_with(kept)
    elif array.ndim == 2 and np.array_equal(original, array.T) and all(user.graph is graph for user, _ in copy.uses()):
        copy.replace_all_uses_with(_insert_transpose(graph, copy, kept))
    else:
        return False
    del graph.initializers[str(copy.name)]
    return True


def _insert_transpose(graph: ir.Graph, copy: ir.Value, kept: ir.Value) -> ir.Value:
    users = {user for user, _ in copy.uses()}
    node = ir.node("Transpose", [kept], {"perm": [1, 0]}, name=f"{kept.name}/Transpose")
    made = node.outputs[0]
    made.name, made.shape, made.dtype = f"{kept.name}_transposed", copy.shape, copy.dtype
    graph.insert_before(next(candidate for candidate in graph if candidate in users), node)
    return made
