"""What could ship: each candidate as plain data, and how its file is made.

In: the fused float graphs and the static plan. Out: ONNX files. Nothing is timed or judged here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self

import onnx_ir as ir

from calibration.linears import Linear, find_branch_linears, find_linears
from calibration.lower.edits import remove_dead
from calibration.lower.fold_smoothing import fold_smoothing
from calibration.lower.onnxruntime.dynamic import lower_dynamic
from calibration.lower.onnxruntime.embedding import lower_embeddings
from calibration.lower.onnxruntime.per_token import lower_per_token
from calibration.lower.onnxruntime.static import lower_static
from calibration.lower.onnxruntime.weight_only import lower_weight_only
from calibration.plan import Plan
from calibration.weights.plan import Method
from exporter.candidates.trial import PLAIN
from exporter.onnxruntime.block_rounding import BITS, BlockRounding
from exporter.onnxruntime.cache_range import CacheRange
from exporter.passes.join_products import join_products
from exporter.passes.join_sparse import join_sparse
from exporter.passes.narrow_cache import narrow_cache
from exporter.passes.packed_weights import find_few_levels, pack_tables, pack_weights
from exporter.passes.prepare import name_nodes
from exporter.passes.sparse_attention import replace_attention
from exporter.passes.sparse_linears import Values, replace_linears
from exporter.passes.sparse_norm import fold_norms
from exporter.passes.untie_weights import open_for_lowering
from exporter.weights.zeros import Block
from exporter.write_model import write_model
from runtimes.artifact import Artifact
from runtimes.isa import Isa, saturates_u8s8
from runtimes.ort import describe_onnx
from runtimes.ort_providers import CPU

Arithmetic = Literal["float", "int8-dynamic", "int8-static", "weights-8", "weights-4", "weights-2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSpec:
    """One way to make the artifact.

    Attributes:
        arithmetic: What the linears compute in.
        merged: Linears over one input merged.
        smoothed: Static activations smoothed even where that costs a product; those of a decoder's dynamic INT8 only
            where it costs none.
        sparse: Linears whose zeros pay in our own sparse kernels, with float values or int8 ones; the rest as it says.
        float_layers: Names of linears left in float; where ``sparse``, in a sparse form of it that pays.
        rounding: How the weights of a decoder are rounded to blocks.
        narrow_tables: Its head and its look-up by token in 4 bits, not 8.
        narrow_cache: Keys and values of a decoder kept in int8.
        provider: The ONNX Runtime execution provider it is for.
        plain: The traced graph itself, with no fusion of ours: what the others are compared with.
    """

    arithmetic: Arithmetic
    merged: bool = False
    smoothed: bool = False
    sparse: bool = False
    float_layers: tuple[str, ...] = ()
    rounding: Method = "rtn"
    narrow_tables: bool = False
    narrow_cache: bool = False
    provider: str = CPU
    plain: bool = False

    @property
    def name(self) -> str:
        """The name shown in tables and used for files."""
        if self.plain:
            return PLAIN
        flags = {"smoothed": self.smoothed, "sparse": self.sparse, "merged": self.merged}
        parts = [self.arithmetic, *(name for name, is_set in flags.items() if is_set)]
        if self.rounding != "rtn":
            parts.append(self.rounding)
        if self.narrow_tables:
            parts.append("4-bit tables")
        if self.narrow_cache:
            parts.append("int8 cache")
        if self.float_layers:
            parts.append(f"{len(self.float_layers)} in float")
        if self.provider != CPU:
            parts.append(self.provider.removesuffix("ExecutionProvider"))
        return ", ".join(parts)

    @property
    def values(self) -> Values:
        """The type of the values where linears are sparse."""
        return "float32" if self.arithmetic == "float" else "int8"

    @property
    def dense_twin(self) -> Self | None:
        """The same candidate without sparse layers; None where it has none."""
        return replace(self, sparse=False) if self.sparse else None

    def leave_in_float(self, layers: tuple[str, ...]) -> Self:
        """Return the same candidate with these linears in float."""
        return replace(self, float_layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatGraphs:
    """The float forms candidates are made from: as traced, fused, and fused with merged linears.

    ``unrounded`` has them once more without the rounding of linears that the model was trained with, if there is any:
    linears behind it can be neither merged nor stored sparse.
    """

    traced: Path
    fused: Path
    merged: Path
    unrounded: FloatGraphs | None = None

    def choose(self, spec: CandidateSpec) -> Path:
        """Return the form a candidate starts from."""
        edits = spec.arithmetic == "int8-dynamic" and (spec.merged or spec.sparse)
        if self.unrounded is not None and edits:
            return self.unrounded.choose(spec)
        return self.traced if spec.plain else self.merged if spec.merged else self.fused

    @property
    def merges(self) -> bool:
        """Whether any linears of the model can be merged."""
        return self.merged != self.fused

    @property
    def in_float(self) -> FloatGraphs:
        """The forms in which every linear has its weight in float: what zeros are looked for in."""
        return self.unrounded or self


class MakePlan(Protocol):
    """Gives a static plan for the linears of one float graph."""

    def __call__(self, graph: Path, *, smoothed: bool) -> Plan:
        """Return the plan."""
        ...


class ChooseBlocks(Protocol):
    """Chooses which linears of one float graph are sparse."""

    def __call__(self, graph: Path, values: Values) -> Mapping[str, Block]:
        """Return the block each is stored in, by the name of its node."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where candidates are built, and for which CPU.

    ``make_plan`` is there where static candidates are, ``choose_blocks`` where sparse ones are, ``blocks`` where the
    model is a decoder, ``cache_range`` where its cache is to be narrower.
    """

    graphs: FloatGraphs
    directory: Path
    isa: Isa
    make_plan: MakePlan | None
    choose_blocks: ChooseBlocks | None = None
    blocks: BlockRounding | None = None
    cache_range: CacheRange | None = None

    def build(self, spec: CandidateSpec) -> Artifact:
        """Write the candidate's file and describe it."""
        source = self.graphs.choose(spec)
        if spec.plain:
            return describe_onnx(source)
        if spec.arithmetic in BITS and self.blocks is not None:
            model = ir.load(source)
            self.blocks.round(model, spec.arithmetic, spec.rounding, narrow_tables=spec.narrow_tables)
            join_products(model)
            return self._write(model, spec)
        model = open_for_lowering(source)
        few = find_few_levels(model)
        if spec.arithmetic == "float" and not spec.sparse and not few:
            return self._write(ir.load(source), spec) if spec.narrow_cache else describe_onnx(source)
        pack_tables(model, few)
        if spec.arithmetic == "int8-dynamic" and self.blocks is not None:
            # Scaled, weights of few levels would have many. Sparse layers round tokens too: what they read is smoothed
            # first, and what goes into blocks for its accuracy stays there.
            smoothed = spec.smoothed and not few
            self.blocks.prepare_tokens(model, smoothed=smoothed, float_layers=spec.float_layers)
        if spec.sparse:
            self._replace(model, spec, source)
        self._lower(model, spec, source, few)
        if spec.arithmetic != "float":
            lower_embeddings(model)
        remove_dead(model)
        pack_weights(model, few)
        if self.blocks is not None:
            join_products(model)
        return self._write(model, spec)

    def _write(self, model: ir.Model, spec: CandidateSpec) -> Artifact:
        if spec.narrow_cache:
            assert self.cache_range is not None, "a narrower cache is offered only with calibration data"
            narrow_cache(model, self.cache_range.peaks)
        # A name that was made up for a value may be that of one in a branch.
        name_nodes(model)
        directory = self.directory / spec.name.replace(", ", "_").replace(" ", "-")
        directory.mkdir(parents=True, exist_ok=True)
        return describe_onnx(write_model(model, directory / "model.onnx"))

    def list_linears(self, spec: CandidateSpec) -> tuple[Linear, ...]:
        """Return the linears of the float graph that the candidate is made from, those of branches too."""
        model = open_for_lowering(self.find_source(spec))
        return (*find_linears(model), *find_branch_linears(model))

    def find_source(self, spec: CandidateSpec) -> Path:
        """Return the float graph that the candidate is made from."""
        return self.graphs.choose(spec)

    def _replace(self, model: ir.Model, spec: CandidateSpec, source: Path) -> None:
        assert self.choose_blocks is not None, "sparse candidates are offered only with a choice of blocks"
        blocks = self.choose_blocks(source, spec.values)
        chosen = {node: block for node, block in blocks.items() if node not in spec.float_layers}
        replace_linears(model, chosen, values=spec.values)
        if spec.float_layers:
            blocks = self.choose_blocks(source, "float32")
            left = {node: block for node, block in blocks.items() if node in spec.float_layers}
            replace_linears(model, left, values="float32")
        fold_norms(model)
        replace_attention(model)
        if self.blocks is not None:
            join_sparse(model)

    def _lower(self, model: ir.Model, spec: CandidateSpec, source: Path, few: Collection[str]) -> None:
        bits = 7 if saturates_u8s8(self.isa) else 8
        linears = [linear for linear in find_linears(model) if linear.node not in spec.float_layers]
        inside = [linear for linear in find_branch_linears(model) if linear.node not in spec.float_layers]
        match spec.arithmetic:
            case "int8-dynamic":
                # What a decoder answers must not depend on how many tokens come at once.
                lower = lower_dynamic if self.blocks is None else lower_per_token
                lower(model, linears + inside, weight_bits=bits)
            case "int8-static":
                assert self.make_plan is not None, "static candidates are offered only with calibration data"
                plan = fold_smoothing(model, self.make_plan(source, smoothed=spec.smoothed))
                lower_static(model, linears, plan, form="integer")
                # What calibration cannot see is measured as it comes.
                lower_dynamic(model, inside, weight_bits=bits)
            case "weights-8" | "weights-4" | "weights-2":
                # Blocks with scales of their own would round weights of few levels once more.
                chosen = [linear for linear in linears + inside if linear.weight not in few]
                lower_weight_only(model, chosen, bits=BITS[spec.arithmetic])
            case "float":
                pass


def offer_candidates(
    precision: str,
    *,
    calibrated: bool,
    providers: Sequence[str],
    timed: bool,
    merges: bool = True,
    sparse: bool = False,
    methods: Sequence[Method] = (),
    narrow_cache: bool = False,
) -> tuple[CandidateSpec, ...]:
    """Return what makes sense to build: the plain float first, then what ``precision`` allows.

    Args:
        precision: ``auto`` or a forced one (see exporter.options.PRECISIONS).
        calibrated: Whether there is calibration data, which static INT8 needs.
        providers: Execution providers present on this machine besides the CPU's; they get the float model.
        timed: Whether they will be timed; if not, variants that differ in speed alone are left out.
        merges: Whether any linears read the same tensor and can be merged.
        sparse: Whether there are weights whose zeros may pay.
        methods: How the weights of a decoder may be rounded to blocks; empty for any other model.
        narrow_cache: Whether what may ship keeps keys and values in int8; plain float, to compare with, never does.
    """
    wanted: dict[str, tuple[Arithmetic, ...]] = {
        "auto": ("float", "int8-dynamic", "int8-static", "weights-8", "weights-4"),
        "fp32": ("float",),
        "int8": ("int8-dynamic", "int8-static"),
        "int8-dynamic": ("int8-dynamic",),
        "int8-static": ("int8-static",),
        "weights-8": ("weights-8",),
        "weights-4": ("weights-4",),
        "weights-2": ("weights-2",),
    }
    specs = [CandidateSpec(arithmetic="float", plain=True)]
    for arithmetic in wanted[precision]:
        if arithmetic == "int8-static" and not calibrated:
            continue
        if arithmetic in BITS and methods:
            # Next to nothing is left to gain where every weight has 256 levels.
            chosen = methods if BITS[arithmetic] < 8 else methods[:1]
            specs += [CandidateSpec(arithmetic=arithmetic, rounding=method) for method in chosen]
            continue
        for smoothed in _list_smoothed(arithmetic, methods):
            spec = CandidateSpec(arithmetic=arithmetic, smoothed=smoothed)
            # Blocks of weights gain nothing from it: with many rows the product is bound by unpacking them. What a
            # decoder multiplies in integers is joined once it is rounded.
            gains = arithmetic in ("float", "int8-static") or (arithmetic == "int8-dynamic" and not methods)
            forms = (False, True) if timed and merges and gains else (False,)
            specs += [replace(spec, merged=merged) for merged in forms]
            if sparse and arithmetic in ("float", "int8-dynamic"):
                specs += [replace(spec, sparse=True, merged=merged) for merged in forms]
    if "float" in wanted[precision]:
        specs += [CandidateSpec(arithmetic="float", provider=provider) for provider in providers]
    return tuple(spec if spec.plain else replace(spec, narrow_cache=narrow_cache) for spec in specs)


def _list_smoothed(arithmetic: Arithmetic, methods: Sequence[Method]) -> tuple[bool, ...]:
    """Return whether to smooth: what costs nothing always, where there are texts to tell how."""
    if arithmetic == "int8-static":
        return (False, True)
    return (arithmetic == "int8-dynamic" and "awq" in methods,)
