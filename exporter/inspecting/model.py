"""What a model is made of, read without running it.

In: a checkpoint directory or ``.safetensors`` file, an ``.onnx`` file, or a directory that ``export`` wrote.
Out: size, operators, parameters, and for each weight what could be quantised or pruned.
Must not import: torch; onnx-ir only when an ONNX file is read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compression.rounding.low_bit import Bits
from exporter.inspecting.codes import read_described, read_levels
from exporter.weights.found_weight import FoundWeight, is_weight
from exporter.weights.zeros import describe_convolution, describe_sparsity, name_block
from runtimes.artifact import MANIFEST_NAME, Manifest, read_manifest
from runtimes.errors import CorruptArtifact, MissingDependency, UnsupportedModel
from runtimes.kernel_check import check_kernels
from runtimes.onnx_file import locate_external_data, read_header
from runtimes.safetensors_file import StoredTensor, list_tensors

_FLOATS = {"F64", "F32", "F16", "BF16", "DOUBLE", "FLOAT", "FLOAT16", "BFLOAT16"}
# Below this many inputs the integer kernel's own overhead is the larger part (one 16-wide step or none).
_MIN_INPUTS_FOR_INT8 = 16
_INT8_OPS = {"Linear", "MatMul", "Gemm", "Conv"}
_SPARSE_OPS = {"SparseLinear", "SparseLinearInt8"}
_NOT_READ = "quantised block-wise: not read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weight of two or more axes.

    ``shape`` is as stored, (outputs, inputs) where that is in blocks; ``zeros`` a fraction, None where the weight is
    stored in a way that is not read; ``quantise`` and ``prune`` say what could be done, or why not. ``stored`` is the
    best form for the sparse kernels of the CPU (block as outputs x inputs), ``stored_bytes`` what it takes by the type
    of its values; empty where the weight is dense.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    zeros: float | None
    pattern: str
    quantise: str
    prune: str
    stored: str = ""
    stored_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found.

    ``kind`` is ``checkpoint``, ``onnx`` or ``artifact``; ``ops`` counts operators (empty for a checkpoint); ``notes``
    say why an artifact would not run here, or otherwise than where it was exported.
    """

    path: str
    kind: str
    size_bytes: int
    parameters: int
    ops: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    def mean_zeros(self) -> float:
        """Fraction of zeros over all weights of the table that were read."""
        read = [(layer.zeros, layer.parameters) for layer in self.layers if layer.zeros is not None]
        total = sum(parameters for _, parameters in read)
        return sum(zeros * parameters for zeros, parameters in read) / total if total else 0.0


def inspect_model(path: Path) -> Inspection:
    """Inspect a checkpoint, an ONNX file or an artifact directory.

    Raises:
        UnsupportedModel: there is nothing there, or it is none of the three.
        CorruptArtifact: it is damaged, or its sparse kernels are not those here.
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
    if path.suffix == ".gguf":
        cure = f"export it, and inspect what was written: stepdown export {path} -o DIR"
        raise UnsupportedModel("a GGUF file is not inspected as it is", where=str(path), cure=cure)
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
    return replace(_inspect_onnx(models[0], kind="artifact"), notes=_note_kernels(directory, manifest))


def _note_kernels(directory: Path, manifest: Manifest) -> tuple[str, ...]:
    entry = manifest.artifacts.get("onnxruntime", {})
    if "sparse_kernels" not in entry:
        return ()
    try:
        return check_kernels(entry, f"{directory / MANIFEST_NAME}:artifacts.onnxruntime")
    except MissingDependency as error:
        return (error.what,)


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
            if is_weight(tensor.shape, tensor.dtype)
        ),
    )


def _describe_stored(tensor: StoredTensor, levels: tuple[NDArray[np.int8], Bits] | None) -> Layer:
    # A checkpoint does not say what a matrix is for; every library names its lookup tables "embeddings".
    op = "Embedding" if "embedding" in tensor.name.lower() or "embed_" in tensor.name else "Linear"
    if len(tensor.shape) > 2:
        op = "Conv"
    if levels is not None:
        array, bits = levels
        found = FoundWeight(name=tensor.name, op=op, shape=array.shape, dtype=f"int{bits}", nonzero=array != 0)
        return _describe_layer(found)
    nonzero = tensor.read_nonzero()
    return _describe_layer(
        FoundWeight(name=tensor.name, op=op, shape=tensor.shape, dtype=tensor.dtype.lower(), nonzero=nonzero)
    )


def _inspect_onnx(path: Path, *, kind: str) -> Inspection:
    header = read_header(path)
    beside = locate_external_data(path, header.external)
    import onnx_ir

    from exporter.inspecting.blockwise_weights import count_hidden
    from exporter.inspecting.node_weights import list_weights
    from exporter.passes.packed_weights import count_more

    model = onnx_ir.load(path)
    nodes = list(model.graph.all_nodes())
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    return Inspection(
        path=str(path),
        kind=kind,
        size_bytes=path.stat().st_size + sum(file.stat().st_size for file in beside),
        parameters=sum(tensor.size for tensor in weights)
        + sum(count_hidden(node) + count_more(node) for node in nodes),
        ops=dict(Counter(node.op_type for node in nodes).most_common()),
        inputs=tuple(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in header.inputs),
        outputs=tuple(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in header.outputs),
        layers=tuple(_describe_layer(weight) for node in nodes for weight in list_weights(node)),
    )


def _describe_layer(weight: FoundWeight) -> Layer:
    """Put together what is known of one weight."""
    is_product = weight.op in _INT8_OPS or "MatMul" in weight.op or "Gemm" in weight.op or weight.op in _SPARSE_OPS
    known = Layer(
        name=weight.name,
        op=weight.op,
        shape=weight.shape,
        dtype=weight.dtype,
        parameters=math.prod(weight.shape),
        zeros=None,
        pattern=_NOT_READ,
        quantise=_find_precision(weight, is_product=is_product),
        prune="-",
    )
    if weight.nonzero is None:
        return known
    if weight.op == "Conv":
        sparsity = describe_convolution(weight.nonzero)
    else:
        sparsity = describe_sparsity(weight.nonzero, multiplied=is_product)
    form = sparsity.best
    return replace(
        known,
        zeros=round(sparsity.zeros, 6),
        pattern=sparsity.pattern,
        prune=sparsity.use if is_product else "-",
        stored=name_block(form.block) if form is not None else "",
        stored_bytes={"float32": form.size_bytes(4), "int8": form.size_bytes(1)} if form is not None else {},
    )


def _find_precision(weight: FoundWeight, *, is_product: bool) -> str:
    """Return what quantising could make of a weight, or why nothing."""
    if weight.op in _SPARSE_OPS:
        return "-"
    if weight.dtype.upper() not in _FLOATS or weight.nonzero is None:
        return f"is {weight.dtype}"
    if not is_product:
        return "int8 table" if weight.op in {"Embedding", "Gather"} else "-"
    inputs = math.prod(weight.nonzero.shape[1:])
    return "int8" if inputs >= _MIN_INPUTS_FOR_INT8 else f"no: {inputs} inputs"
