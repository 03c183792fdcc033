"""What a plan of TensorRT is, and what became of each layer in it.

In: a ``.plan`` with its record. Out: the record, and where it runs TensorRT's engine inspector as a table.
Must not import: torch, onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import MissingDependency
from runtimes.trt.inspector import LayerRow, describe_unpicked
from runtimes.trt.options import RunOptions, TrtOptions
from runtimes.trt.record import PlanRecord, verify_plan
from runtimes.trt.runtime import TensorRt


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInspection:
    """``unknown`` says why the layers are not known here; ``unpicked`` which do not run as the record asks."""

    path: str
    size_bytes: int
    record: PlanRecord
    layers: tuple[LayerRow, ...] = ()
    unpicked: str = ""
    unknown: str = ""


def inspect_plan(plan: Path, *, allow_host_code: bool = False) -> PlanInspection:
    """Inspect a plan; its layers are known where it runs.

    Raises:
        CorruptArtifact: it is damaged, or of another version or GPU than are here.
        UsageError: it brings code that is not allowed.
    """
    record = verify_plan(plan)
    layers: tuple[LayerRow, ...] = ()
    unknown = ""
    try:
        layers = TensorRt(TrtOptions(run=RunOptions(allow_host_code=allow_host_code))).list_layers(plan)
    except MissingDependency as error:
        unknown = error.what
    return PlanInspection(
        path=str(plan),
        size_bytes=plan.stat().st_size,
        record=record,
        layers=layers,
        unpicked=describe_unpicked(layers, record.expected) if layers else "",
        unknown=unknown,
    )
