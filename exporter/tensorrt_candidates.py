"""What could ship for TensorRT: float in one of its types, INT8 with the rest in that type, and with sparse kernels.

In: the traced graph and symmetric static plans. Out: ONNX files whose types say everything, which TensorRT builds as
they are. Nothing is built, timed or judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from calibration.linears import find_linears
from calibration.lower.fold_smoothing import fold_smoothing
from calibration.lower.tensorrt import Lowered, lower_tensorrt
from exporter.candidates import MakePlan
from exporter.fuse import open_for_lowering
from exporter.trace import write_model
from exporter.trial import PLAIN
from runtimes.artifact import Artifact
from runtimes.ort import describe_onnx

# What is not INT8 computes in; strong typing makes it so.
Rest = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtSpec:
    """One way to make a plan.

    Attributes:
        arithmetic: What the linears compute in; ``float`` is the type of ``rest``.
        rest: The type of everything else.
        attention: Whether the products of attention are INT8 too.
        sparse: Whether 2:4 weights may use sparse kernels.
        float_layers: Names of linears left in float.
        plain: The traced graph itself, in float32.
    """

    arithmetic: Literal["float", "int8-static"]
    rest: Rest = "fp16"
    attention: bool = False
    sparse: bool = False
    float_layers: tuple[str, ...] = ()
    plain: bool = False

    @property
    def name(self) -> str:
        """The name shown in tables and used for files."""
        if self.plain:
            return PLAIN
        flags = {"attention": self.attention, "2:4": self.sparse}
        parts: list[str] = [self.rest] if self.arithmetic == "float" else [self.arithmetic, self.rest]
        parts += [name for name, is_set in flags.items() if is_set]
        if self.float_layers:
            parts.append(f"{len(self.float_layers)} in float")
        return ", ".join(parts)

    def leave_in_float(self, layers: tuple[str, ...]) -> Self:
        """Return the same candidate with these linears in float."""
        return replace(self, float_layers=layers)

    def graph(self) -> TrtSpec:
        """The candidate whose ONNX file this one shares: sparse kernels are asked of the builder, not of the graph."""
        return replace(self, sparse=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtWorkshop:
    """Lowers candidates to ONNX. ``lowered`` remembers what each lowering said, by its graph."""

    traced: Path
    directory: Path
    make_plan: MakePlan | None
    lowered: dict[TrtSpec, Lowered] = field(default_factory=dict)

    def build(self, spec: TrtSpec) -> Artifact:
        """Write the candidate's ONNX file and describe it."""
        if spec.plain:
            return describe_onnx(self.traced)
        key = spec.graph()
        directory = self.directory / key.name.replace(", ", "_").replace(" ", "-")
        path = directory / "model.onnx"
        if key not in self.lowered:
            directory.mkdir(parents=True, exist_ok=True)
            model = open_for_lowering(self.traced)
            plan = None
            if spec.arithmetic == "int8-static":
                assert self.make_plan is not None, "INT8 is offered only with statistics"
                plan = fold_smoothing(model, self.make_plan(self.traced, smoothed=False))
            linears = [linear for linear in find_linears(model) if linear.node not in spec.float_layers]
            self.lowered[key] = lower_tensorrt(model, linears, plan, rest=spec.rest, attention=spec.attention)
            write_model(model, path)
        return describe_onnx(path)

    def find_source(self, spec: TrtSpec) -> Path:
        """Return the float graph that the candidate is made from."""
        del spec
        return self.traced


def offer_trt_candidates(
    precision: str, rest: Rest, *, calibrated: bool, attention: bool, sparse: bool
) -> tuple[TrtSpec, ...]:
    """Return what makes sense to build: the plain float first, then what ``precision`` allows.

    Args:
        precision: ``auto``, ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        rest: The type of what is not INT8.
        calibrated: Whether there are statistics, which INT8 needs.
        attention: Whether the products of attention are INT8 too.
        sparse: Whether the model has 2:4 weights and sparse kernels may be used.
    """
    wanted: Mapping[str, tuple[str, ...]] = {
        "auto": ("float", "int8"),
        "fp32": (),
        "fp16": ("float",),
        "bf16": ("float",),
        "int8": ("int8",),
    }
    specs = [TrtSpec(arithmetic="float", rest="fp32", plain=True)]
    if "float" in wanted[precision]:
        specs.append(TrtSpec(arithmetic="float", rest=rest))
    if "int8" in wanted[precision] and calibrated:
        specs.append(TrtSpec(arithmetic="int8-static", rest=rest, attention=attention))
    if sparse:
        specs += [replace(spec, sparse=True) for spec in specs if not spec.plain]
    return tuple(specs)
