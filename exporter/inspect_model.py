"""What a model is made of, read without running it.

In: a checkpoint directory or ``.safetensors`` file, an ``.onnx`` file, or a directory that ``export`` wrote.
Out: size, operators, parameters, and for each weight what could be quantised or pruned.
Must not import: torch; onnx-ir only when an ONNX file is read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compression.low_bit import Bits
from exporter.inspect_codes import read_described, read_levels
from exporter.sparsity import Sparsity, describe_sparsity, name_block
from runtimes.artifact import MANIFEST_NAME, read_manifest
from runtimes.errors import CorruptArtifact, UnsupportedModel
from runtimes.onnx_file import locate_external_data, read_header
from runtimes.safetensors_file import StoredTensor, list_tensors
from runtimes.sparse.library import DOMAIN
from runtimes.sparse.storage import decode

if TYPE_CHECKING:
    import onnx_ir

_FLOATS = {"F64", "F32", "F16", "BF16", "DOUBLE", "FLOAT", "FLOAT16", "BFLOAT16"}
# Below this many inputs the integer kernel's own overhead is the larger part (one 16-wide step or none).
_MIN_INPUTS_FOR_INT8 = 16
_INT8_OPS = {"Linear", "MatMul", "Gemm", "Conv"}
_SPARSE_OPS = {"SparseLinear", "SparseLinearInt8"}
# Tensors of indices and masks are no weights.
_INDEX_TYPES = {"I64", "I32", "BOOL", "INT64", "INT32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weight of two or more axes.

    ``shape`` is as stored, (outputs, inputs) where the weight is stored sparse; ``zeros`` a fraction; ``quantise`` and
    ``prune`` say what could be done, or why not. ``stored`` is the best form for the sparse kernels of the CPU (block
    as outputs x inputs), ``stored_bytes`` what it takes by the type of its values; empty where the weight is dense.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    zeros: float
    pattern: str
    quantise: str
    prune: str
    stored: str = ""
    stored_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """``kind`` is ``checkpoint``, ``onnx`` or ``artifact``; ``ops`` counts operators (empty for a checkpoint)."""

    path: str
    kind: str
    size_bytes: int
    parameters: int
    ops: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]

    def mean_zeros(self) -> float:
        """Fraction of zeros over all weights of the table."""
        total = sum(layer.parameters for layer in self.layers)
        return sum(layer.zeros * layer.parameters for layer in self.layers) / total if total else 0.0


def inspect_model(path: Path) -> Inspection:
    """Inspect a checkpoint, an ONNX file or an artifact directory.

    Raises:
        UnsupportedModel: there is nothing there, or it is none of the three.
        CorruptArtifact: it is damaged.
    """
    if (path / MANIFEST_NAME).is_file():
        return _inspect_artifact(path)
    if path.suffix == ".onnx":
        return _inspect_onnx(path, kind="onnx")
    if path.is_dir() or path.suffix == ".safetensors":
        if not path.exists():
            raise _nothing_there(path)
        return _inspect_checkpoint(path)
    if not path.exists():
        raise _nothing_there(path)
    raise UnsupportedModel(
        "not a model that can be inspected",
        where=str(path),
        cure="give a directory with .safetensors, an .onnx file, or a directory that `stepdown export` wrote",
    )


def _nothing_there(path: Path) -> UnsupportedModel:
    return UnsupportedModel("there is no such model", where=str(path), cure="check the path")


def _inspect_artifact(directory: Path) -> Inspection:
    manifest = read_manifest(directory)
    models = [directory / record.path for record in manifest.files if record.path.endswith(".onnx")]
    if not models:
        raise CorruptArtifact("the manifest names no model", where=str(directory), cure="export it again")
    return _inspect_onnx(models[0], kind="artifact")


def _inspect_checkpoint(path: Path) -> Inspection:
    tensors = list_tensors(path)
    described = read_described(path)
    levels = {tensor.name: found for tensor in tensors if (found := read_levels(tensor, described)) is not None}
    floats = sum(math.prod(tensor.shape) for tensor in tensors if tensor.dtype in _FLOATS)
    return Inspection(
        path=str(path),
        kind="checkpoint",
        size_bytes=sum(file.stat().st_size for file in {tensor.file for tensor in tensors}),
        parameters=floats + sum(array.size for array, _ in levels.values()),
        ops={},
        inputs=(),
        outputs=(),
        layers=tuple(
            _describe_stored(tensor, levels.get(tensor.name))
            for tensor in tensors
            if _is_weight(tensor.shape, tensor.dtype)
        ),
    )


def _is_weight(shape: tuple[int | object, ...], dtype: str) -> bool:
    return len(shape) >= 2 and dtype not in _INDEX_TYPES


def _describe_stored(tensor: StoredTensor, levels: tuple[NDArray[np.int8], Bits] | None) -> Layer:
    # A checkpoint does not say what a matrix is for; every library names its lookup tables "embeddings".
    op = "Embedding" if "embedding" in tensor.name.lower() or "embed_" in tensor.name else "Linear"
    if len(tensor.shape) > 2:
        op = "Conv"
    if levels is not None:
        array, bits = levels
        return _describe_layer(tensor.name, op, array.shape, f"int{bits}", array != 0)
    nonzero = tensor.read_nonzero().reshape(tensor.shape[0], -1)
    return _describe_layer(tensor.name, op, tensor.shape, tensor.dtype, nonzero)


def _inspect_onnx(path: Path, *, kind: str) -> Inspection:
    header = read_header(path)
    beside = locate_external_data(path, header.external)
    import onnx_ir

    from exporter.passes.packed_weights import count_more

    model = onnx_ir.load(path)
    nodes = list(model.graph.all_nodes())
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return Inspection(
        path=str(path),
        kind=kind,
        size_bytes=path.stat().st_size + sum(file.stat().st_size for file in beside),
        parameters=sum(tensor.size for tensor in weights) + sum(map(count_more, nodes)),
        ops=dict(Counter(node.op_type for node in nodes).most_common()),
        inputs=tuple(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in header.inputs),
        outputs=tuple(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in header.outputs),
        layers=tuple(layer for node in nodes for layer in _describe_node(node)),
    )


def _describe_node(node: onnx_ir.Node) -> list[Layer]:
    """Describe the stored matrices that a node multiplies with or looks up."""
    if node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
        return []
    if node.domain == DOMAIN:
        return [_describe_sparse(node)]
    from exporter.passes.packed_weights import read_packed, unpacks

    if unpacks(node):
        return []
    layers = []
    for place, value in enumerate(node.inputs):
        if value is None:
            continue
        if (packed := read_packed(node, place)) is not None:
            array, bits = packed
            nonzero = _orient(np.asarray(array != 0), node, place)
            layers.append(_describe_layer(node.name or node.op_type, node.op_type, array.shape, f"int{bits}", nonzero))
            continue
        stored, zero_point = _find_stored(value)
        if stored is None or not _is_weight(tuple(stored.shape), stored.dtype.name):
            continue
        array = stored.numpy()
        nonzero = np.asarray(array != zero_point)
        layers.append(
            _describe_layer(
                node.name or value.name or node.op_type,
                node.op_type,
                tuple(array.shape),
                stored.dtype.name,
                _orient(nonzero, node, place),
            )
        )
    return layers


def _describe_sparse(node: onnx_ir.Node) -> Layer:
    """Describe the weight of one of our own operators, which is stored in blocks."""
    from exporter.passes.sparse_linears import read_stored

    stored = read_stored(node)
    name, dtype = node.name or node.op_type, stored.values.dtype.name
    return _describe_layer(name, node.op_type, stored.shape, dtype, decode(stored) != 0)


def _find_stored(value: onnx_ir.Value) -> tuple[onnx_ir.TensorProtocol | None, Any]:
    """Return the stored tensor behind a value, through a DequantizeLinear, and the value that stands for zero."""
    producer = value.producer()
    if producer is None:
        return value.const_value, 0
    if producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return None, 0
    zero = producer.inputs[2] if len(producer.inputs) > 2 else None
    if zero is None or zero.const_value is None:
        return producer.inputs[0].const_value, 0
    points = np.unique(zero.const_value.numpy())
    return producer.inputs[0].const_value, points[0] if len(points) == 1 else 0


def _orient(nonzero: NDArray[np.bool_], node: onnx_ir.Node, place: int) -> NDArray[np.bool_]:
    """Return the matrix as (outputs, inputs), which is how the left factor of a product lies and the right one not."""
    if "MatMul" not in node.op_type and "Gemm" not in node.op_type:
        return nonzero.reshape(nonzero.shape[0], -1)
    matrix = nonzero.reshape(-1, nonzero.shape[-1])
    is_left = place == 0
    is_turned = bool(node.attributes.get_int("transA" if is_left else "transB", 0))
    return matrix if is_left != is_turned else matrix.T


def _describe_layer(name: str, op: str, shape: tuple[int, ...], dtype: str, nonzero: NDArray[np.bool_]) -> Layer:
    """Put together what is known of one weight; ``nonzero`` has shape (outputs, inputs)."""
    is_product = op in _INT8_OPS or "MatMul" in op or "Gemm" in op or op in _SPARSE_OPS
    sparsity = describe_sparsity(nonzero, multiplied=is_product)
    if op in _SPARSE_OPS:
        quantise = "-"
    elif dtype not in _FLOATS:
        quantise = f"is {dtype.lower()}"
    elif not is_product:
        quantise = "int8 table" if op in {"Embedding", "Gather"} else "-"
    else:
        quantise = "int8" if nonzero.shape[1] >= _MIN_INPUTS_FOR_INT8 else f"no: {nonzero.shape[1]} inputs"
    form = sparsity.best if op != "Conv" else None
    return Layer(
        name=name,
        op=op,
        shape=shape,
        dtype=dtype.lower(),
        parameters=math.prod(shape),
        zeros=round(sparsity.zeros, 6),
        pattern=sparsity.pattern,
        quantise=quantise,
        prune=_describe_use(op, sparsity) if is_product else "-",
        stored=name_block(form.block) if form is not None else "",
        stored_bytes={"float32": form.size_bytes(4), "int8": form.size_bytes(1)} if form is not None else {},
    )


def _describe_use(op: str, sparsity: Sparsity) -> str:
    if op == "Conv" and sparsity.pattern not in ("dense", "rows", "2:4"):
        return "none: no sparse kernels for convolutions"
    return sparsity.use
