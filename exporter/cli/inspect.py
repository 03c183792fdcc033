"""``stepdown inspect``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_bytes, format_table
from exporter.cli.parsing import add_host_code

if TYPE_CHECKING:
    from exporter.inspecting.model import Inspection, Layer
    from exporter.inspecting.plan import PlanInspection
    from exporter.progress import Progress

SUMMARY = (
    "Say what a model is made of and what could be quantised or pruned; of a plan, what TensorRT made of each layer."
)
EXAMPLE = "stepdown inspect out/minilm"
EXTRA = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="a checkpoint directory, an .onnx file, a .plan of TensorRT, or an exported directory",
    )
    add_host_code(parser)


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Inspect the model."""
    progress.step(f"reading {arguments.model}")
    if arguments.model.suffix == ".plan":
        return _inspect_plan(arguments.model, allow_host_code=arguments.allow_host_code)
    from exporter.inspecting.model import inspect_model

    inspection = inspect_model(arguments.model)
    document = {**asdict(inspection), "zeros": round(inspection.mean_zeros(), 6)}
    return Outcome(document=document, text=_describe(inspection), notes=inspection.notes)


def _inspect_plan(plan: Path, *, allow_host_code: bool) -> Outcome:
    from exporter.inspecting.plan import inspect_plan

    inspection = inspect_plan(plan, allow_host_code=allow_host_code)
    return Outcome(document=asdict(inspection), text=_describe_plan(inspection))


def _describe_plan(inspection: PlanInspection) -> str:
    from runtimes.trt.fit import describe_gpus
    from runtimes.trt.profiles import describe_ranges

    record = inspection.record
    lines = [
        f"{inspection.path}: plan of {record.library} {record.version}, {format_bytes(inspection.size_bytes)}",
        f"runs on {describe_gpus(record)}",
        *(f"profile {describe_ranges(ranges)}" for ranges in record.profiles),
    ]
    if inspection.unpicked:
        lines.append(f"not as asked: {inspection.unpicked}")
    if inspection.unknown:
        return "\n".join([*lines, f"its layers are not known here: {inspection.unknown}"])
    rows = [
        (layer.name, layer.kind, layer.precision, layer.output, "2:4" if layer.sparse else "", layer.tactic)
        for layer in inspection.layers
    ]
    headers = ("layer", "kind", "reads", "writes", "weights", "kernel")
    return "\n".join([*lines, "", format_table(headers, rows)])


def _describe(inspection: Inspection) -> str:
    lines = [
        f"{inspection.path}: {inspection.kind}, {format_bytes(inspection.size_bytes)}, "
        f"{inspection.parameters:,} parameters, {inspection.mean_zeros():.1%} zeros in weights"
    ]
    lines += [f"input   {name}" for name in inspection.inputs]
    lines += [f"output  {name}" for name in inspection.outputs]
    if inspection.ops:
        lines.append("ops     " + ", ".join(f"{op} {count}" for op, count in inspection.ops.items()))
    rows = [
        (
            layer.name,
            layer.op,
            "x".join(map(str, layer.shape)),
            layer.dtype,
            f"{layer.zeros:.1%}" if layer.zeros is not None else "-",
            layer.pattern,
            layer.quantise,
            layer.prune,
            _describe_stored(layer),
        )
        for layer in inspection.layers
    ]
    headers = ("weight", "op", "shape", "type", "zeros", "pattern", "quantise", "gain from zeros", "stored sparse")
    return "\n".join([*lines, "", format_table(headers, rows)]) if rows else "\n".join(lines)


def _describe_stored(layer: Layer) -> str:
    """What the arrays of the best form take, as shares of the dense float32 weight."""
    shares = (f"{size / (4 * layer.parameters):.0%} {dtype}" for dtype, size in layer.stored_bytes.items())
    return f"{layer.stored}: {', '.join(shares)}" if layer.stored else "-"
