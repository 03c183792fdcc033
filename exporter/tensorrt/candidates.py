"""What could ship for TensorRT: float in one of its types, INT8 or 4-bit weights and the rest in that, sparse kernels.

In: the traced graph and symmetric static plans. Out: ONNX files whose types say everything, which TensorRT builds as
they are. Nothing is built, timed or judged here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import onnx_ir as ir

from calibration.linears import Linear, find_linears
from calibration.lower.tensorrt.lower import Lowered, lower_tensorrt
from calibration.lower.tensorrt.placement import Placement, place
from calibration.lower.tensorrt.products import find_products
from calibration.weights.blocks import Blocks
from calibration.weights.plan import Method
from exporter.candidates.trial import PLAIN
from exporter.lint.check_file import lint_file
from exporter.onnxruntime.candidates import MakePlan
from exporter.passes.int4_weights import store_blocks, store_int4
from exporter.passes.packed_weights import find_few_levels
from exporter.passes.untie_weights import open_for_lowering
from exporter.sparsity.linear_zeros import survey_linears
from exporter.tensorrt.int4_rounding import Int4Rounding
from exporter.write_model import write_model
from runtimes.artifact import Artifact
from runtimes.errors import UnsupportedModel
from runtimes.generation.cache_spec import find_cache
from runtimes.ort import describe_onnx

# What is not INT8 computes in; strong typing makes it so.
Rest = Literal["fp32", "fp16", "bf16"]
# Nodes named in the findings; the rest is counted.
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtSpec:
    """One way to make a plan.

    Attributes:
        arithmetic: What the linears compute in; ``float`` is the type of ``rest``. ``weights-4`` computes in it too,
            with weights rounded to blocks of 4 bits.
        rounding: How they are rounded.
        rest: The type of everything else.
        attention: Whether the products of attention are INT8 too.
        sparse: Whether 2:4 weights may use sparse kernels.
        int4: Whether weights that have few levels are stored in 4 bits, where the linears compute in float.
        float_layers: Names of linears left in float.
        plain: The traced graph itself, in float32.
        provider: An ONNX Runtime execution provider that runs the traced graph instead of a plan; empty for a plan.
    """

    arithmetic: Literal["float", "int8-static", "weights-4"]
    rounding: Method = "rtn"
    rest: Rest = "fp16"
    attention: bool = False
    sparse: bool = False
    int4: bool = False
    float_layers: tuple[str, ...] = ()
    plain: bool = False
    provider: str = ""

    @property
    def name(self) -> str:
        """The name shown in tables and used for files."""
        if self.plain:
            return PLAIN
        if self.provider:
            return f"{self.arithmetic}, ONNX Runtime {self.provider.removesuffix('ExecutionProvider')}"
        flags = {"attention": self.attention, "2:4": self.sparse, "4-bit weights": self.int4}
        parts: list[str] = [self.rest] if self.arithmetic == "float" else [self.arithmetic, self.rest]
        if self.rounding != "rtn":
            parts.append(self.rounding)
        parts += [name for name, is_set in flags.items() if is_set]
        if self.float_layers:
            parts.append(f"{len(self.float_layers)} in float")
        return ", ".join(parts)

    @property
    def dense_twin(self) -> Self | None:
        """The same candidate without sparse kernels; None where it may use none."""
        return replace(self, sparse=False) if self.sparse else None

    def leave_in_float(self, layers: tuple[str, ...]) -> Self:
        """Return the same candidate with these linears in float."""
        return replace(self, float_layers=layers)

    def graph(self) -> TrtSpec:
        """The candidate whose ONNX file this one shares: sparse kernels are asked of the builder, not of the graph."""
        return replace(self, sparse=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """What became of a candidate's graph.

    Attributes:
        done: Which nodes read INT8, which stayed in FP32 and why.
        left: Linears that are not worth INT8, and why.
        sparse: Nodes whose weights, as they are stored, hold 2:4.
        doubtful: Nodes of operators that TensorRT lacks by its documentation; its parser has the last word.
    """

    done: Lowered
    left: Mapping[str, str]
    sparse: tuple[str, ...]
    doubtful: Mapping[str, str]

    def list_findings(self) -> tuple[str, ...]:
        """Return a sentence for everything that is not as the candidate's name says."""
        narrow = _list_some(self.done.kept, "stays in FP32")
        unmeasured = self.done.unmeasured
        if unmeasured:
            names = ", ".join(unmeasured[:_SHOWN])
            narrow += (f"{len(unmeasured)} float values were not calibrated: nobody can say they fit FP16 ({names})",)
        left = _list_some(self.left, "is not quantised")
        return narrow + left + _list_some(self.doubtful, "may be refused")


def find_worthwhile(prepared: Path) -> tuple[str, ...]:
    """Return the names of the linears of a prepared graph that are worth INT8."""
    model = open_for_lowering(prepared)
    return tuple(linear.node for linear in place(model, find_linears(model)).quantised)


def has_few_levels(prepared: Path) -> bool:
    """Whether any weight of a prepared graph has few levels."""
    return bool(find_few_levels(open_for_lowering(prepared)))


def has_sparse_weights(prepared: Path) -> bool:
    """Whether any weight of a prepared graph is pruned to 2:4, as sparse tensor cores take it."""
    model = open_for_lowering(prepared)
    return any(sparsity.two_four for sparsity in survey_linears(model, find_linears(model)).values())


def _list_some(reasons: Mapping[str, str], what: str) -> tuple[str, ...]:
    shown = tuple(f"{node} {what}: {why}" for node, why in list(reasons.items())[:_SHOWN])
    rest = len(reasons) - len(shown)
    return (*shown, f"and {rest} more nodes like these") if rest else shown


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtWorkshop:
    """Lowers candidates to ONNX. ``lowered`` remembers what became of each graph.

    Attributes:
        prepared: The float graph, see :mod:`exporter.tensorrt.graph`.
        directory: Where files are written.
        make_plan: Gives symmetric static plans; None where there are no statistics.
        magnitudes: Largest magnitude by value, over the calibration data.
        rounding: Rounds weights to 4 bits; None where that is not offered.
    """

    prepared: Path
    directory: Path
    make_plan: MakePlan | None
    magnitudes: Mapping[str, float]
    rounding: Int4Rounding | None = None
    lowered: dict[TrtSpec, Lowering] = field(default_factory=dict)

    def build(self, spec: TrtSpec) -> Artifact:
        """Write the candidate's ONNX file and describe it.

        Raises:
            UnsupportedModel: it cannot be lowered, or the lint finds an error in what came out, which is ours.
        """
        if spec.plain or spec.provider:
            return describe_onnx(self.prepared)
        key = spec.graph()
        directory = self.directory / key.name.replace(", ", "_").replace(" ", "-")
        path = directory / "model.onnx"
        if key not in self.lowered:
            directory.mkdir(parents=True, exist_ok=True)
            # In float a table and a head that are one matrix stay one.
            is_float = key.arithmetic == "float" and not key.int4
            model = ir.load(self.prepared) if is_float else open_for_lowering(self.prepared)
            lowering = self._lower(model, key)
            write_model(model, path)
            self.lowered[key] = replace(lowering, doubtful=_check_rules(path))
        return describe_onnx(path)

    def list_linears(self, spec: TrtSpec) -> tuple[Linear, ...]:
        """Return the linears of the float graph; those of branches stay in float."""
        del spec
        return find_linears(open_for_lowering(self.prepared))

    def _lower(self, model: ir.Model, spec: TrtSpec) -> Lowering:
        linears = find_linears(model)
        placed, plan = Placement(quantised=(), left={}), None
        if spec.arithmetic == "int8-static":
            assert self.make_plan is not None, "INT8 is offered only with statistics"
            placed = place(model, [linear for linear in linears if linear.node not in spec.float_layers])
            # The product that smoothing costs is fused into what comes before it, on a GPU.
            plan = self.make_plan(self.prepared, smoothed=True)
        products = find_products(model, self.magnitudes) if spec.attention else ()
        few = find_few_levels(model) if spec.int4 else {}
        rounded: Mapping[str, Blocks] = {}
        if spec.arithmetic == "weights-4":
            assert self.rounding is not None, "4-bit weights are offered only with what rounds them"
            rounded = self.rounding.round(model, linears, spec.rounding)
        done = lower_tensorrt(
            model,
            placed.quantised,
            plan,
            precision=spec.rest,
            magnitudes=self.magnitudes,
            products=products,
            narrow_ends=self._list_cache() if spec.rest == "fp16" else frozenset(),
        )
        store_int4(model, few)
        store_blocks(model, linears, rounded)
        # Of what is stored now: rounding to integers makes zeros.
        survey = survey_linears(model, linears)
        sparse = tuple(node for node, sparsity in survey.items() if sparsity.two_four)
        return Lowering(done=done, left=placed.left, sparse=sparse, doubtful={})

    def _list_cache(self) -> frozenset[str]:
        """Return the inputs and outputs that are a decoder's cache: in FP16 half as much is kept and read."""
        cache = find_cache(describe_onnx(self.prepared).inputs)
        return frozenset(name for pair in cache.names() for name in pair) if cache is not None else frozenset()


def _check_rules(path: Path) -> Mapping[str, str]:
    """Return nodes of operators that may be missing; raise where our own graph breaks any other rule of our lint."""
    found = [finding for finding in lint_file(path, "tensorrt") if finding.severity == "error"]
    broken = [finding for finding in found if finding.rule != "operator"]
    if broken:
        first = broken[0]
        raise UnsupportedModel(
            f"the lowered graph breaks {len(broken)} rules of TensorRT; the first, {first.rule}: {first.what}",
            where=first.node,
            cure=f"{first.cure}; --precision fp32 needs none of it",
        )
    return {finding.node: finding.what for finding in found}


def offer_trt_candidates(
    precision: str,
    rest: Rest,
    *,
    calibrated: bool,
    attention: bool,
    sparse: bool,
    int4: bool = False,
    methods: Sequence[Method] = (),
    providers: Sequence[str] = (),
) -> tuple[TrtSpec, ...]:
    """Return what makes sense to build: the plain float first, then what ``precision`` allows.

    Args:
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16``, ``int8`` or ``weights-4``.
        rest: The type of what is not INT8.
        calibrated: Whether INT8 can be made: there are statistics, and linears that are worth it.
        attention: Whether the products of attention are INT8 too.
        sparse: Whether the model has 2:4 weights and sparse kernels may be used.
        int4: Whether the model has weights of few levels, which 4 bits hold.
        methods: How weights may be rounded to 4 bits; empty where that is not asked for.
        providers: ONNX Runtime's, on the GPU that plans are timed on: what a user would run otherwise.
    """
    wanted: Mapping[str, tuple[str, ...]] = {
        "auto": ("float", "weights-4", "int8"),
        "fp32": (),
        "fp16": ("float",),
        "bf16": ("float",),
        "int8": ("int8",),
        "weights-4": ("weights-4",),
    }
    specs = [TrtSpec(arithmetic="float", rest="fp32", plain=True)]
    # In FP32 it would be the plain one again.
    if "float" in wanted[precision] and rest != "fp32":
        specs.append(TrtSpec(arithmetic="float", rest=rest))
        if int4:
            specs.append(TrtSpec(arithmetic="float", rest=rest, int4=True))
    if "weights-4" in wanted[precision]:
        specs += [TrtSpec(arithmetic="weights-4", rest=rest, rounding=method) for method in methods]
    if "int8" in wanted[precision] and calibrated:
        specs.append(TrtSpec(arithmetic="int8-static", rest=rest, attention=attention))
    if sparse:
        specs += [
            replace(spec, sparse=True)
            for spec in specs
            if not (spec.plain or spec.int4 or spec.arithmetic == "weights-4")
        ]
    if precision == "auto":
        specs += [TrtSpec(arithmetic="float", rest="fp32", provider=provider) for provider in providers]
    return tuple(specs)
