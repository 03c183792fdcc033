"""What a plan is: the JSON file beside it, which says what built it, from what, for which GPUs and shapes.

In: facts of a build. Out: :class:`PlanRecord`, read and written, and whether a plan must be built again. Imports no
TensorRT, so that a plan can be inspected and refused anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from runtimes.artifact import Artifact, TensorSpec, hash_file
from runtimes.atomic import write_text
from runtimes.errors import CorruptArtifact
from runtimes.trt.library import LIBRARIES, LibraryName
from runtimes.trt.options import Expectation, Hardware
from runtimes.trt.profiles import InputRange, Ranges

SCHEMA = 1
_CURE = "build it again, or fetch the plan with the .json beside it"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """Facts of one plan.

    Attributes:
        library: The package that built it, and the only one that opens it.
        version: That package's version.
        sms: Compute capabilities it has kernels for (``89``); of an enterprise plan the one it was built on.
        hardware: Which other GPUs an enterprise plan runs on.
        version_compatible: Whether later versions of the package open it.
        profiles: Ranges by input, one mapping a profile.
        flags: The builder flags that were set, by name, sorted.
        settings: Further settings of the builder, by name.
        model_sha256: Of the ONNX file (and its weights) it was built from.
        plan_sha256: Of the plan.
        inputs, outputs: What it takes and gives, with the axis names of the ONNX file.
        expected: Layers whose kernels are checked on opening.
        repeats: Whether the same build gives the same bytes: a build with timings does not.
    """

    library: LibraryName
    version: str
    sms: tuple[int, ...]
    hardware: Hardware
    version_compatible: bool
    profiles: tuple[Ranges, ...]
    flags: tuple[str, ...]
    settings: Mapping[str, int]
    model_sha256: str
    plan_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    expected: Expectation
    repeats: bool
    schema: int = SCHEMA

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the plan's bytes: all facts but the plan's own hash."""
        facts = _to_json(self)
        del facts["plan_sha256"]
        return facts


def record_path(plan: Path) -> Path:
    """``model.plan`` -> ``model.plan.json``."""
    return plan.with_name(f"{plan.name}.json")


def write_record(plan: Path, record: PlanRecord) -> Path:
    """Write the record beside the plan and return its path."""
    path = record_path(plan)
    write_text(path, json.dumps(_to_json(record), indent=2, sort_keys=True) + "\n")
    return path


def read_record(plan: Path) -> PlanRecord:
    """Read the record beside a plan.

    Raises:
        CorruptArtifact: it is missing, cannot be read, or is of another schema.
    """
    path = record_path(plan)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        schema = facts["schema"]
    except FileNotFoundError as error:
        raise CorruptArtifact("the plan has no record beside it", where=str(path), cure=_CURE) from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"the plan's record cannot be read: {error}", where=str(path), cure=_CURE) from error
    if schema != SCHEMA:
        raise CorruptArtifact(
            f"record schema {schema}, this stepdown reads {SCHEMA}",
            where=f"{path}:schema",
            cure="build the plan again, or use the stepdown that built it",
        )
    try:
        return _from_json(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"the plan's record is not whole: {error}", where=str(path), cure=_CURE) from error


def verify_plan(plan: Path) -> PlanRecord:
    """Read the record and check that the plan is the one it describes.

    Raises:
        CorruptArtifact: the plan or its record is missing, damaged, or of another build.
    """
    if not plan.is_file():
        raise CorruptArtifact("there is no such plan", where=str(plan), cure=_CURE)
    if plan.stat().st_size == 0:
        raise CorruptArtifact("the plan is empty", where=str(plan), cure=_CURE)
    record = read_record(plan)
    if hash_file(plan) != record.plan_sha256:
        raise CorruptArtifact("the plan is not the one its record describes", where=str(plan), cure=_CURE)
    return record


def describe_plan(plan: Path, record: PlanRecord) -> Artifact:
    """Describe a plan and its record as an artifact."""
    return Artifact(
        path=plan,
        kind="plan",
        sha256=record.plan_sha256,
        inputs=record.inputs,
        outputs=record.outputs,
        files=(plan, record_path(plan)),
    )


def why_rebuild(plan: Path, wanted: PlanRecord) -> str | None:
    """Return why a plan must be built again to be what ``wanted`` asks for (its ``plan_sha256`` is not looked at).

    None where the plan that is there came from the same model, package and settings, and is whole.
    """
    try:
        found = verify_plan(plan)
    except CorruptArtifact as error:
        return error.what
    old, new = found.recipe(), wanted.recipe()
    changed = [name.replace("_", " ") for name in new if old[name] != new[name]]
    return f"changed since: {', '.join(changed)}" if changed else None


def _to_json(record: PlanRecord) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(json.dumps(asdict(record)))
    return facts


def _from_json(facts: Mapping[str, Any]) -> PlanRecord:
    for name, known in (("library", LIBRARIES), ("hardware", get_args(Hardware))):
        if facts[name] not in known:
            raise ValueError(f"unknown {name} {facts[name]!r}")
    for name in ("version", "model_sha256", "plan_sha256"):
        _require(facts[name], str)
    for name in ("version_compatible", "repeats"):
        _require(facts[name], bool)
    return PlanRecord(
        **{
            **facts,
            "sms": _read_all(facts["sms"], int),
            "profiles": tuple(_read_ranges(ranges) for ranges in facts["profiles"]),
            "flags": _read_all(facts["flags"], str),
            "settings": {name: _require(value, int) for name, value in facts["settings"].items()},
            "inputs": _read_specs(facts["inputs"]),
            "outputs": _read_specs(facts["outputs"]),
            "expected": Expectation(**{name: _read_all(nodes, str) for name, nodes in facts["expected"].items()}),
        }
    )


def _require(value: Any, *kinds: type) -> Any:  # noqa: ANN401 (a part of a JSON document)
    if type(value) not in kinds:
        raise TypeError(f"{value!r} is no {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _read_all(values: Any, *kinds: type) -> tuple[Any, ...]:  # noqa: ANN401 (a part of a JSON document)
    return tuple(_require(value, *kinds) for value in _require(values, list))


def _read_ranges(ranges: Mapping[str, Mapping[str, Sequence[int]]]) -> Ranges:
    return {
        name: InputRange(**{corner: _read_all(shape, int) for corner, shape in found.items()})
        for name, found in ranges.items()
    }


def _read_specs(specs: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=_require(spec["name"], str),
            dtype=_require(spec["dtype"], str),
            shape=_read_all(spec["shape"], int, str),
        )
        for spec in specs
    )
