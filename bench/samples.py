"""Raw timings and their file: integers as they were read from the clock, never a summary.

In and out: :class:`Samples`, one per subject, and a JSON file of several. Statistics are computed on reading.
Must not import a runtime.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtimes.atomic import write_text
from runtimes.errors import CorruptArtifact

SCHEMA = 1
_CURE = "measure again; a sample file is written whole or not at all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What was measured of one subject.

    Attributes:
        label: The subject's name.
        ns: Duration of each run in nanoseconds, by block; block ``i`` of all subjects measured together belongs to
            round ``i``.
        warmup_ns: The runs before, not counted.
        machine: What :func:`bench.machine.describe_machine` said.
        artifact_sha256: What was run, where it was a file.
    """

    label: str
    ns: tuple[tuple[int, ...], ...]
    warmup_ns: tuple[int, ...]
    machine: Mapping[str, Any]
    artifact_sha256: str | None = None

    def block_medians_ns(self) -> tuple[float, ...]:
        """Median of each block, in round order."""
        return tuple(float(statistics.median(block)) for block in self.ns)

    def median_ns(self) -> float:
        """Median over the block medians, so that a long block counts as much as a short one."""
        return float(statistics.median(self.block_medians_ns()))

    def quantile_ns(self, share: float) -> float:
        """The smallest duration that at least ``share`` of all runs (0 < share <= 1) did not exceed."""
        runs = sorted(run for block in self.ns for run in block)
        return float(runs[max(0, math.ceil(share * len(runs)) - 1)])


def write_samples(path: Path, samples: Sequence[Samples]) -> None:
    """Write a sample file atomically.

    Raises:
        OutputError: no room, or no permission.
    """
    document = {"schema": SCHEMA, "kind": "stepdown-samples", "samples": [asdict(one) for one in samples]}
    write_text(path, json.dumps(document, indent=None, sort_keys=True, allow_nan=False) + "\n")


def read_samples(path: Path) -> tuple[Samples, ...]:
    """Read a sample file.

    Raises:
        CorruptArtifact: it is missing, truncated, of another kind or schema, holds no samples, or a duration that
            is not a positive whole number of nanoseconds (NaN included).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorruptArtifact("there is no such sample file", where=str(path), cure="measure first") from error
    except (UnicodeDecodeError, json.JSONDecodeError, IsADirectoryError) as error:
        raise CorruptArtifact(f"the sample file cannot be read: {error}", where=str(path), cure=_CURE) from error
    if not isinstance(document, dict) or document.get("kind") != "stepdown-samples":
        raise CorruptArtifact("this is not a sample file", where=str(path), cure="give a file written by a measurement")
    if document.get("schema") != SCHEMA:
        raise CorruptArtifact(
            f"sample schema {document.get('schema')}, this stepdown reads {SCHEMA}", where=f"{path}:schema", cure=_CURE
        )
    listed = document.get("samples")
    if not isinstance(listed, list) or not listed:
        raise CorruptArtifact("the file holds no samples", where=f"{path}:samples", cure=_CURE)
    return tuple(_read_one(one, f"{path}:samples[{number}]") for number, one in enumerate(listed))


def _read_one(data: object, where: str) -> Samples:
    try:
        samples = Samples(**data)  # type: ignore[arg-type]
    except TypeError as error:
        raise CorruptArtifact(f"an entry lacks a part: {error}", where=where, cure=_CURE) from error
    if not isinstance(samples.label, str) or not isinstance(samples.machine, dict):
        raise CorruptArtifact("an entry has parts of the wrong type", where=where, cure=_CURE)
    if not isinstance(samples.ns, list) or not samples.ns:
        raise CorruptArtifact("an entry holds no blocks", where=f"{where}.ns", cure=_CURE)
    blocks = tuple(_read_runs(block, f"{where}.ns[{number}]") for number, block in enumerate(samples.ns))
    if not all(blocks):
        raise CorruptArtifact("a block is empty", where=f"{where}.ns", cure=_CURE)
    return Samples(
        label=samples.label,
        ns=blocks,
        warmup_ns=_read_runs(samples.warmup_ns, f"{where}.warmup_ns"),
        machine=samples.machine,
        artifact_sha256=samples.artifact_sha256,
    )


def _read_runs(runs: object, where: str) -> tuple[int, ...]:
    if not isinstance(runs, list):
        raise CorruptArtifact("runs are not a list", where=where, cure=_CURE)
    for number, run in enumerate(runs):
        # A bool is an int in Python, and NaN is what json reads as a float.
        if not isinstance(run, int) or isinstance(run, bool) or run <= 0:
            raise CorruptArtifact(
                f"{run} is not a positive whole number of nanoseconds", where=f"{where}[{number}]", cure=_CURE
            )
    return tuple(runs)
