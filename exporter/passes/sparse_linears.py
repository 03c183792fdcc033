"""Linears with many zeros become our own sparse operators, which add the bias and apply the activation too.

In: a float model, and in which block each linear is to be stored. Out: the same model with ``SparseLinear`` or
``SparseLinearInt8`` (domain ``ai.stepdown``, runtimes/sparse) in their place. It decides nothing, and comes after the
passes that know what a MatMul is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from calibration.linears import find_linears
from calibration.lower.edits import add_constant, remove_dead, take_over
from calibration.lower.onnxruntime.sites import Site, find_sites
from calibration.quantise import quantise_weight
from exporter.passes.activations import find_activation
from exporter.passes.graph import constant
from exporter.weights.zeros import Block, name_block
from runtimes.errors import CorruptArtifact
from runtimes.sparse.library import DOMAIN
from runtimes.sparse.storage import StoredWeight, encode

Values = Literal["float32", "int8"]

OPERATORS: Mapping[Values, str] = {"float32": "SparseLinear", "int8": "SparseLinearInt8"}
#: What the name of the node that a linear became ends in.
SUFFIX = "_sparse"
# What a node that several linears became says of them, in the file too: their names, one in a line.
_LINEARS = "ai.stepdown.linears"


def replace_linears(model: ir.Model, blocks: Mapping[str, Block], *, values: Values) -> int:
    """Replace the MatMul and Gemm nodes named in ``blocks``; return how many.

    Args:
        model: A float model.
        blocks: The block (outputs, inputs) each linear is stored in, by the name of its node.
        values: Type of the stored values; int8 ones have a scale for each output and are symmetric.

    Raises:
        UnsupportedModel: a node is not in the graph.
    """
    chosen = [linear for linear in find_linears(model) if linear.node in blocks]
    sites = find_sites(model, chosen)
    for site in sites:
        _replace(model, site, blocks[site.linear.node], values)
    if sites:
        model.graph.opset_imports[DOMAIN] = 1
        remove_dead(model)
    return len(sites)


def is_sparse(node: ir.Node) -> bool:
    """Whether a node is a linear in one of our sparse operators; the domain has others, without weights."""
    return node.domain == DOMAIN and node.op_type in OPERATORS.values()


def list_sparse(model: ir.Model) -> frozenset[str]:
    """Return the linears, by the name their node had, that :func:`replace_linears` replaced in a model."""
    return frozenset(linear for node in model.graph if is_sparse(node) for linear in read_linears(node))


def read_linears(node: ir.Node) -> Sequence[str]:
    """Return the linears that a sparse operator is, by the names their nodes had."""
    told = node.metadata_props.get(_LINEARS)
    return told.splitlines() if told is not None else [(node.name or "").removesuffix(SUFFIX)]


def tell_linears(node: ir.Node, linears: Sequence[str]) -> None:
    """Write into a sparse operator which linears it is, where its name does not say it."""
    node.metadata_props[_LINEARS] = "\n".join(linears)


def read_stored(node: ir.Node) -> StoredWeight:
    """Return the weight that a sparse operator stores, as it is in the file: :func:`decode` checks it.

    Raises:
        CorruptArtifact: an input or an attribute is missing, or is of another type.
    """
    arrays = [constant(value) for value in node.inputs[1:4]]
    names = ("out_features", "in_features", "block_out", "block_in")
    found = [node.attributes[name] for name in names if name in node.attributes]
    numbers = [one.as_int() for one in found if one.type is ir.AttributeType.INT and not one.is_ref()]
    if len(numbers) != len(names) or len(arrays) != 3 or any(array is None for array in arrays):
        raise CorruptArtifact(
            "a sparse operator lacks its weight", where=node.name or node.op_type, cure="export the model again"
        )
    values, gaps, row_starts = (np.asarray(array) for array in arrays)
    out, inputs, high, wide = numbers
    return StoredWeight(shape=(out, inputs), block=(high, wide), values=values, gaps=gaps, row_starts=row_starts)


def _replace(model: ir.Model, site: Site, block: Block, values: Values) -> None:
    name = f"{site.linear.weight}_{name_block(block)}_{values}"
    output, activation = find_activation(site.output)
    scales = []
    if values == "int8":
        integers, steps, _ = quantise_weight(site.weight, axis=1)
        stored = encode(integers.T, block)
        scales.append(add_constant(model.graph, f"{name}_scale", steps))
    else:
        stored = encode(site.weight.T, block)
    bias = site.bias if site.bias is not None else np.zeros(stored.shape[0], np.float32)
    inputs = [
        site.activation,
        add_constant(model.graph, name, stored.values),
        add_constant(model.graph, f"{name}_gaps", stored.gaps),
        add_constant(model.graph, f"{name}_row_starts", stored.row_starts),
        *scales,
        add_constant(model.graph, f"{site.linear.weight}_bias", bias),
    ]
    attributes = {
        "out_features": stored.shape[0],
        "in_features": stored.shape[1],
        "block_out": block[0],
        "block_in": block[1],
        "activation": activation,
    }
    node = ir.node(OPERATORS[values], inputs, attributes, domain=DOMAIN, name=f"{site.linear.node}{SUFFIX}")
    model.graph.insert_before(site.node, node)
    take_over(output, node.outputs[0])
