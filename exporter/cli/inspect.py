"""``stepdown inspect``. Must not import anything heavy at module level."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.outcome import Outcome, format_bytes, format_table

if TYPE_CHECKING:
    from exporter.inspect_model import Inspection
    from exporter.progress import Progress

SUMMARY = "Say what a model is made of and what could be quantised or pruned."
EXAMPLE = "stepdown inspect out/minilm"
EXTRA = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="a checkpoint directory, an .onnx file, or an exported directory"
    )


def execute(arguments: argparse.Namespace, progress: Progress) -> Outcome:
    """Inspect the model."""
    from exporter.inspect_model import inspect_model

    progress.step(f"reading {arguments.model}")
    inspection = inspect_model(arguments.model)
    document = {**asdict(inspection), "zeros": round(inspection.mean_zeros(), 6)}
    return Outcome(document=document, text=_describe(inspection))


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
            f"{layer.zeros:.1%}",
            layer.pattern,
            layer.quantise,
            layer.prune,
        )
        for layer in inspection.layers
    ]
    headers = ("weight", "op", "shape", "type", "zeros", "pattern", "quantise", "gain from zeros")
    return "\n".join([*lines, "", format_table(headers, rows)]) if rows else "\n".join(lines)
