"""One sparse layer against dense ones and PyTorch's CSR, over shapes, patterns, densities and numbers of tokens.

In: nothing but the machine. Out: times by layer, and what follows from them: where sparse begins to pay, and the share
of the machine's fused multiply-adds that reach a result. All subjects of a shape are interleaved in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.timing.measure import MeasurePlan, measure_interleaved
from runtimes.sparse.library import DOMAIN, library_path
from runtimes.sparse.storage import BLOCKS, StoredWeight, encode
from runtimes.torch_rt import TorchOptions, TorchRuntime

# (inputs, outputs): MiniLM's, and those of BERT-base.
SHAPES = ((384, 384), (384, 1536), (1536, 384), (768, 3072), (3072, 768))
TOKENS = (1, 16, 128, 1024)
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DENSE, DENSE_INT8, TORCH, CSR = "onnxruntime", "onnxruntime int8", "torch", "torch csr"

Array = NDArray[Any]
# What, block, density.
_Key = tuple[str, tuple[int, int] | None, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One subject at one shape: ``median_ns`` of a run, ``values`` that are not zero in the weight as stored.

    ``what`` is ``float``, ``int8`` (ours), or one of the dense subjects and CSR; ``block`` is None for those.
    """

    shape: tuple[int, int]
    tokens: int
    what: str
    block: tuple[int, int] | None
    density: float
    values: int
    median_ns: float


def time_layers(
    shapes: Sequence[tuple[int, int]], tokens: Sequence[int], *, threads: int, plan: MeasurePlan
) -> Iterator[LayerTime]:
    """Time every subject of every shape and number of tokens.

    Raises:
        MissingDependency: the sparse kernels, onnxruntime or torch are not there.
    """
    for shape in shapes:
        for count in tokens:
            yield from _time_shape(shape, count, threads, plan)


def find_break_even(times: Sequence[LayerTime], what: str, block: tuple[int, int], base: str) -> float | None:
    """Return the sparsity from which ``what`` is as fast as ``base``, of the times of one shape and number of tokens.

    Between two densities the time is taken to be linear in it. None where even the lowest density does not pay.
    """
    (limit,) = [one.median_ns for one in times if one.what == base]
    mine = sorted((one.density, one.median_ns) for one in times if one.what == what and one.block == block)
    if not mine or mine[0][1] > limit:
        return None
    for (below, fast), (above, slow) in pairwise(mine):
        if slow > limit:
            return 1 - (below + (above - below) * (limit - fast) / (slow - fast))
    return 1 - mine[-1][0]


def share_of_peak(time: LayerTime, peak_gflops: float) -> float:
    """Return which share of ``peak_gflops`` the multiply-adds on stored values make, everything else included."""
    return 2.0 * time.values * time.tokens / time.median_ns / peak_gflops


def draw_weight(shape: tuple[int, int], block: tuple[int, int], density: float, seed: int) -> NDArray[np.float32]:
    """Return a float32 weight [out, in] with ``density`` of its blocks, chosen at random, not zero."""
    generator = np.random.default_rng(seed)
    inputs, outputs = shape
    grid = (-(-outputs // block[0]), -(-inputs // block[1]))
    kept = generator.permutation(grid[0] * grid[1]) < round(density * grid[0] * grid[1])
    mask = np.kron(kept.reshape(grid), np.ones(block, bool))[:outputs, :inputs]
    weight: NDArray[np.float32] = generator.standard_normal((outputs, inputs)).astype(np.float32) * mask
    return weight


def _time_shape(shape: tuple[int, int], tokens: int, threads: int, plan: MeasurePlan) -> Iterator[LayerTime]:
    x = np.random.default_rng(0).standard_normal((tokens, shape[0])).astype(np.float32)
    calls: dict[_Key, Callable[[], object]] = {}
    values: dict[_Key, int] = {}
    whole = draw_weight(shape, (1, 1), 1.0, 0)
    for what, call in _open_dense(whole, x, threads).items():
        calls[what, None, 1.0], values[what, None, 1.0] = call, whole.size
    for density in DENSITIES:
        for block in BLOCKS:
            weight = draw_weight(shape, block, density, 1)
            count = int(np.count_nonzero(weight))
            for what, model in (("float", _float_model(weight, block)), ("int8", _int8_model(weight, block))):
                calls[what, block, density], values[what, block, density] = _open(model, x, threads), count
            if block == (1, 1) and density < 0.5:  # above, it is larger than the dense weight
                csr = TorchRuntime(TorchOptions(threads=threads, sparse="csr")).open_linear(weight)
                calls[CSR, None, density], values[CSR, None, density] = csr.prepare({"input": x}), count
    names = {f"{what} {block} {density}": (what, block, density) for what, block, density in calls}
    samples = measure_interleaved({name: calls[key] for name, key in names.items()}, plan, machine={})
    for name, key in names.items():
        yield LayerTime(
            shape=shape,
            tokens=tokens,
            what=key[0],
            block=key[1],
            density=key[2],
            values=values[key],
            median_ns=samples[name].median_ns(),
        )


def _open_dense(weight: NDArray[np.float32], x: Array, threads: int) -> Mapping[str, Callable[[], object]]:
    scale = np.abs(weight).max(axis=1) / 127
    integers = np.rint(weight / scale[:, None]).astype(np.int8)
    product = helper.make_node("MatMul", ["x", "weight"], ["y"])
    quantised = helper.make_node("DynamicQuantizeMatMul", ["x", "weight", "scale"], ["y"], domain="com.microsoft")
    return {
        DENSE: _open(_model(product, weight.shape, {"weight": weight.T.copy()}), x, threads),
        DENSE_INT8: _open(_model(quantised, weight.shape, {"weight": integers.T.copy(), "scale": scale}), x, threads),
        TORCH: TorchRuntime(TorchOptions(threads=threads)).open_linear(weight).prepare({"input": x}),
    }


def _float_model(weight: NDArray[np.float32], block: tuple[int, int]) -> onnx.ModelProto:
    stored = encode(weight, block)
    return _sparse_model("SparseLinear", stored, {})


def _int8_model(weight: NDArray[np.float32], block: tuple[int, int]) -> onnx.ModelProto:
    scale = np.abs(weight).max(axis=1) / 127
    integers = np.rint(weight / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return _sparse_model("SparseLinearInt8", encode(integers, block), {"scales": scale.astype(np.float32)})


def _sparse_model(operator: str, stored: StoredWeight, scales: Mapping[str, Array]) -> onnx.ModelProto:
    arrays: dict[str, Array] = {"values": stored.values, "gaps": stored.gaps, "row_starts": stored.row_starts}
    arrays |= {**scales, "bias": np.zeros(stored.shape[0], np.float32)}
    node = helper.make_node(
        operator,
        ["x", *arrays],
        ["y"],
        domain=DOMAIN,
        out_features=stored.shape[0],
        in_features=stored.shape[1],
        block_out=stored.block[0],
        block_in=stored.block[1],
        activation="none",
    )
    return _model(node, stored.shape, arrays)


def _model(node: onnx.NodeProto, shape: Sequence[int], arrays: Mapping[str, Array]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", shape[0]])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    domains = {"": 21, "com.microsoft": 1, DOMAIN: 1}
    opsets = [helper.make_opsetid(name, version) for name, version in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _open(model: onnx.ModelProto, x: Array, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if any(node.domain == DOMAIN for node in model.graph.node):
        options.register_custom_ops_library(str(library_path()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})
