"""What the compression suite measured, as small JSON files in one folder: they outlive the models they tell of.

In: records. Out: files, and records read back. A record names the recipe, the data and the CPU it came from; where the
recipe or the data changed since, it counts no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.machine.description import describe_machine
from bench.suites.compression.data import TaskData
from bench.suites.compression.rows import ROWS, describe_row
from bench.suites.compression.times import Timed
from bench.timing.compare import Comparison
from runtimes.artifact import hash_file
from runtimes.atomic import write_text

#: The tier where TensorRT takes nothing of a model.
NO_TIER = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Judged on the test texts, through the artifact."""

    accuracy: float
    macro_f1: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How far TensorRT went, and the bytes of the plan; ``why`` where it went nowhere."""

    tier: str
    size_bytes: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a record was measured of, and where: hashes of what it is made by, and of the texts learned from."""

    made_by_sha256: str
    data_sha256: str
    cpu: str

    def is_of(self, made_by: str) -> bool:
        """Whether it is still made so."""
        return self.made_by_sha256 == _hash_text(made_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything measured of one row, task and seed.

    ``artifact_bytes`` is what serving needs: model, tokenizer and configuration; ``teacher_bytes`` are the teacher's
    weights alone. ``train_seconds`` is the time of the recipe's steps.
    """

    key: str
    task: str
    seed: int
    origin: Origin
    quality: Quality
    teacher: Quality
    artifact_bytes: int
    model_bytes: int
    teacher_bytes: int
    candidate: str
    plan: Plan
    times: Mapping[str, Timed]
    train_seconds: float
    facts: tuple[Mapping[str, Any], ...] = field(default=())


def describe_origin(made_by: str, data: TaskData) -> Origin:
    """Return what is measured of, on this machine."""
    cpu = describe_machine()["cpu"]
    return Origin(made_by_sha256=_hash_text(made_by), data_sha256=hash_file(data.train), cpu=cpu)


def write_record(folder: Path, record: Record) -> None:
    """Keep a record."""
    keep(_find(folder, record.key, record.task, record.seed), asdict(record))


def keep(path: Path, figures: Mapping[str, Any]) -> None:
    """Write what was measured as JSON, in a folder that is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(figures, indent=1, sort_keys=True) + "\n")


def read_record(folder: Path, key: str, task: str, seed: int) -> Record | None:
    """Return the record of a row; None where there is none, or it is made otherwise now."""
    path = _find(folder, key, task, seed)
    if not path.is_file():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    origin = Origin(**told.pop("origin"))
    if not origin.is_of(describe_row(key, ROWS[key])):
        return None
    times = {shape: _read_timed(one) for shape, one in told.pop("times").items()}
    parts = {name: Quality(**told.pop(name)) for name in ("quality", "teacher")}
    facts = tuple(told.pop("facts"))
    return Record(**{**told, **parts, "origin": origin, "plan": Plan(**told["plan"]), "times": times, "facts": facts})


def read_records(folder: Path) -> dict[tuple[str, str], list[Record]]:
    """Return every record there is, by row and task, in the order of the rows."""
    found: dict[tuple[str, str], list[Record]] = {}
    for key, row in ROWS.items():
        for task in row.tasks:
            some = [read_record(folder, key, task, seed) for seed in row.seeds]
            if there := [one for one in some if one is not None]:
                found[key, task] = there
    return found


def _find(folder: Path, key: str, task: str, seed: int) -> Path:
    return folder / f"{task}-{key}-seed{seed}.json"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_timed(told: Mapping[str, Any]) -> Timed:
    ratios = {name: Comparison(**told[name]) for name in ("against_torch", "against_ort")}
    return Timed(median_ns=told["median_ns"], gemm_gflops=told["gemm_gflops"], **ratios)
