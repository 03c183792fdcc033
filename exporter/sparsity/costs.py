"""How fast a linear is sparse, against its dense form, on this machine.

In: one linear, a stored form, the shapes of an export, and what earlier exports measured. Out: the gain at each shape.
Both forms are models of one layer, made by the very passes and lowerings that make the whole model, and timed in turns.
What was measured counts for every layer of the same shape, block and (nearly) density, here and in later exports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bench.timing.compare import MIN_ROUNDS, compare
from bench.timing.measure import MeasurePlan, measure_interleaved
from calibration.linears import find_linears
from calibration.lower.edits import add_constant
from calibration.lower.onnxruntime.dynamic import lower_dynamic
from calibration.lower.onnxruntime.per_token import lower_per_token
from calibration.lower.onnxruntime.sites import Site
from exporter.passes.activations import find_activation
from exporter.passes.sparse_linears import Values, replace_linears
from exporter.sparsity.kept_gains import KeptGains
from exporter.weights.zeros import Block, StoredForm, name_block
from exporter.write_model import write_model
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from runtimes.sparse.reference import Activation

Shape = tuple[int, int]
Axes = tuple[int | str, ...]

_OPSET, _IR_VERSION = 23, 10
_NODE = "linear"
# A layer takes microseconds: six short rounds tell 5 % apart, and what is nearer than that may go either way.
_PLAN = MeasurePlan(
    blocks=MIN_ROUNDS, block_seconds=0.02, min_runs=3, max_runs=200, discard=1, warmup_seconds=0.05, time_budget_s=4
)
# Between one reading of a layer by a single token and the next lie all other layers. So many bytes of dense copies
# stand for them: more than a last cache holds, and in no more copies than it takes to fill a second one.
_COLD_BYTES, _MOST_COPIES = 128_000_000, 256
# Densities within 10 % of each other are one: under a threshold for the whole model each layer has its own.
_DENSITY_STEP = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCase:
    """A linear as it stands in a graph: float32 weight [in, out], bias [out] or None, and the axes it reads."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    activation: Activation
    axes: Axes


def read_case(site: Site) -> LinearCase:
    """Describe the linear at ``site``; a shape nobody knows is taken for a row for each token."""
    known = site.activation.shape
    axes = tuple(axis if isinstance(axis, int) else str(axis) for axis in known) if known is not None else ("tokens", 0)
    return LinearCase(
        weight=site.weight,
        bias=site.bias,
        activation=find_activation(site.output)[1],
        axes=(*axes[:-1], site.weight.shape[0]),
    )


class CostTable:
    """Finds gains, each measured once and kept in ``kept``. Writes its models below ``directory``."""

    def __init__(
        self,
        *,
        directory: Path,
        shapes: Sequence[Shape],
        threads: int | None,
        weight_bits: int,
        kept: KeptGains,
        per_token: bool = False,
        model_bytes: int = 0,
    ) -> None:
        """Time as a decoder's layers are lowered where ``per_token``: dense INT8 has a scale for every token then.

        A single token meets as many copies of a layer as fill a model of ``model_bytes`` in float.
        """
        self._directory, self._shapes, self._per_token = directory, tuple(shapes), per_token
        self._model_bytes = model_bytes
        self._threads, self._weight_bits = threads, weight_bits
        self._kept = kept
        self._timed = 0

    def find_gain(self, case: LinearCase, form: StoredForm, values: Values) -> Mapping[str, float]:
        """Return dense time over sparse time by shape (``8x128``).

        Args:
            case: The linear.
            form: How it would be stored.
            values: ``float32`` against the dense float product, ``int8`` against the dense dynamic INT8 one.
        """
        layer = _name_layer(case, form, values) + (", a scale a token" if self._rounds_tokens(values) else "")
        sizes = {f"{batch}x{length}": resolve_axes(case.axes, (batch, length)) for batch, length in self._shapes}
        copies = {at: self._count_copies(case, values, at) for at in sizes.values()}
        names = {at: _name_size(layer, at, copies[at]) for at in sizes.values()}
        gains = {at: self._kept.find(name) for at, name in names.items()}
        measured: dict[tuple[int, ...], float] = {}
        for count in dict.fromkeys(copies[at] for at, gain in gains.items() if gain is None):
            unknown = [at for at, gain in gains.items() if gain is None and copies[at] == count]
            measured |= self._measure(case, form.block, values, unknown, count)
        self._kept.add({names[at]: gain for at, gain in measured.items()})
        known = {at: gain for at, gain in gains.items() if gain is not None} | measured
        return {shape: known[at] for shape, at in sizes.items()}

    def list_findings(self) -> tuple[str, ...]:
        """Return a sentence on how many gains were measured, and how many were known."""
        return self._kept.list_findings()

    def _rounds_tokens(self, values: Values) -> bool:
        return self._per_token and values == "int8"

    def _count_copies(self, case: LinearCase, values: Values, at: tuple[int, ...]) -> int:
        if math.prod(at[:-1]) > 1:
            return 1
        stored = case.weight.size * (4 if values == "float32" else 1)
        return max(1, min(self._model_bytes // case.weight.nbytes, _COLD_BYTES // stored, _MOST_COPIES))

    def _measure(
        self, case: LinearCase, block: Block, values: Values, sizes: Sequence[tuple[int, ...]], copies: int
    ) -> dict[tuple[int, ...], float]:
        name = f"{self._timed}-{name_block(block)}-{values}"
        self._timed += 1
        cases = _turn_round(case, copies)
        dense, sparse = make_linear(*cases), make_linear(*cases)
        if values == "int8":
            lower = lower_per_token if self._rounds_tokens(values) else lower_dynamic
            lower(dense, find_linears(dense), weight_bits=self._weight_bits)
        replace_linears(sparse, {linear.node: block for linear in find_linears(sparse)}, values=values)
        runtime = OnnxRuntime(OrtOptions(threads=self._threads))
        self._directory.mkdir(parents=True, exist_ok=True)
        paths = [
            write_model(model, self._directory / f"{name}-{kind}.onnx")
            for kind, model in (("dense", dense), ("sparse", sparse))
        ]
        gains: dict[tuple[int, ...], float] = {}
        opened = [runtime.open(describe_onnx(path)) for path in paths]
        with closing(opened[0]) as one, closing(opened[1]) as other:
            for at in sizes:
                x = np.random.default_rng(0).standard_normal(at).astype(np.float32)
                feeds = {spec.name: x for spec in one.inputs}
                subjects = {"dense": one.prepare(feeds), "sparse": other.prepare(feeds)}
                samples = measure_interleaved(subjects, _PLAN)
                gains[at] = compare(samples["dense"], samples["sparse"]).ratio
        return gains


def _name_layer(case: LinearCase, form: StoredForm, values: Values) -> str:
    """Return what tells a layer from one with another speed, in words: it is a key of the file of kept gains."""
    step = round(math.log(max(form.density, 1e-6), _DENSITY_STEP))
    bias = "a bias" if case.bias is not None else "no bias"
    shape = f"{form.shape[0]}x{form.shape[1]}"
    stored = f"{_DENSITY_STEP**step:.3g} in {name_block(form.block)} {values}"
    return f"{shape}, {stored}, {bias}, {case.activation}"


def _name_size(layer: str, at: tuple[int, ...], copies: int) -> str:
    return f"{layer}, input {'x'.join(map(str, at))}" + (f", {copies} in turns" if copies > 1 else "")


def resolve_axes(axes: Axes, shape: Shape) -> tuple[int, ...]:
    """Return the sizes of ``axes`` at (batch, sequence): a fixed one stays, the two are taken by their names.

    Any other is the sequence where there are more axes to hold the batch; the one axis of a matrix holds both.
    """
    batch, length = shape
    other = batch * length if len(axes) == 2 else length
    named = {"batch": batch, "sequence": length}
    return tuple(axis if isinstance(axis, int) else named.get(axis, other) for axis in axes)


def _turn_round(case: LinearCase, copies: int) -> list[LinearCase]:
    """Return so many of a linear, each with its outputs in another order: of equal weights only one would be kept."""
    return [case, *(replace(case, weight=np.roll(case.weight, turns, axis=1)) for turns in range(1, copies))]


def make_linear(*cases: LinearCase) -> ir.Model:
    """Return a model of a linear alone, or of several side by side, each with an input of its own."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": _OPSET}, name=_NODE)
    for number, case in enumerate(cases):
        _add_linear(graph, case, f"_{number}" if number else "")
    return ir.Model(graph, ir_version=_IR_VERSION)


def _add_linear(graph: ir.Graph, case: LinearCase, ending: str) -> None:
    """Add the linear, every name of which ends so."""
    axes = [axis if isinstance(axis, int) or axis == "batch" else f"axis_{at}" for at, axis in enumerate(case.axes)]
    kind = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name=f"x{ending}", shape=ir.Shape(axes), type=kind)
    graph.inputs.append(x)
    weight = add_constant(graph, f"weight{ending}", case.weight)
    nodes = [ir.node("MatMul", [x, weight], name=f"{_NODE}{ending}")]
    if case.bias is not None:
        bias = add_constant(graph, f"bias{ending}", case.bias)
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias], name=f"add{ending}"))
    nodes += _make_activation(nodes[-1].outputs[0], case.activation, f"activation{ending}")
    for node in nodes:
        node.outputs[0].shape, node.outputs[0].type = ir.Shape([*axes[:-1], case.weight.shape[1]]), kind
    nodes[-1].outputs[0].name = f"y{ending}"
    graph.extend(nodes)
    graph.outputs.append(nodes[-1].outputs[0])


def _make_activation(value: ir.Value, activation: Activation, name: str) -> list[ir.Node]:
    match activation:
        case "none":
            return []
        case "relu":
            return [ir.node("Relu", [value], name=name)]
        case "silu":
            gate = ir.node("Sigmoid", [value], name=f"{name}_gate")
            return [gate, ir.node("Mul", [value, gate.outputs[0]], name=name)]
        case "gelu" | "gelu_tanh":
            approximate = "tanh" if activation == "gelu_tanh" else "none"
            return [ir.node("Gelu", [value], {"approximate": approximate}, name=name)]
