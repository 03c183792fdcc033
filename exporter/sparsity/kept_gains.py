"""Gains of single layers, kept between exports: one JSON file for each machine, runtime and build of the kernels.

In: what a timing depends on, and gains by the name of what was timed. Out: the gains again, and a sentence on where
they came from. Must not import a runtime. The file is a cache: what cannot be read, or is of other conditions, is
passed over and said so, and one that cannot be written costs the next export its time and this one nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.machine.description import describe_machine, fingerprint
from bench.packages import cache_directory
from runtimes.artifact import hash_file
from runtimes.atomic import write_text
from runtimes.errors import OutputError
from runtimes.sparse.library import ISA_VARIABLE, library_path

# Of the file, and of how layers are named and timed: another number makes older files foreign.
_SCHEMA = 1
# What is this near to 1 is timed again each time: one disturbed timing must not decide for good.
_UNSURE = (0.9, 1.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGain:
    """Dense time over sparse time, and the day it was measured (UTC, ISO 8601)."""

    gain: float
    measured: str


class KeptGains:
    """The gains in ``path``, if they were measured under ``conditions``, and those that an export adds."""

    def __init__(self, path: Path, conditions: Mapping[str, Any]) -> None:
        self._path, self._conditions = path, {"schema": _SCHEMA, **conditions}
        self._kept, note = self._read()
        self._notes = {note} if note else set()
        self._measured: dict[str, float] = {}
        self._taken: dict[str, KeptGain] = {}

    def find(self, layer: str) -> float | None:
        """Return the gain of what has this name, or None where it must be measured."""
        if layer in self._measured:
            return self._measured[layer]
        kept = self._kept.get(layer)
        if kept is None or _UNSURE[0] < kept.gain < _UNSURE[1]:
            return None
        self._taken[layer] = kept
        return kept.gain

    def add(self, gains: Mapping[str, float]) -> None:
        """Keep what was just measured, beside what other exports may have added meanwhile."""
        self._measured.update(gains)
        today = datetime.now(UTC).date().isoformat()
        added = {layer: KeptGain(gain=gain, measured=today) for layer, gain in gains.items()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._path):
                self._write({**self._read()[0], **added})
        except (OSError, OutputError) as error:
            self._notes.add(f"gains of single layers could not be kept for the next export: {error}")

    def list_findings(self) -> tuple[str, ...]:
        """Return how many gains were measured and how many were known from when, and what was odd about the file."""
        if not self._measured and not self._taken:
            return ()
        parts = [f"{len(self._measured)} measured now"]
        if self._taken:
            days = sorted({kept.measured for kept in self._taken.values()})
            parts.append(f"{len(self._taken)} known from {' to '.join(dict.fromkeys((days[0], days[-1])))}")
        return (f"gains of single layers: {', '.join(parts)}", *sorted(self._notes))

    def _read(self) -> tuple[dict[str, KeptGain], str]:
        """Return the gains in the file, and what is odd about it."""
        try:
            data = json.loads(self._path.read_bytes())
            found = {layer: _check_gain(KeptGain(**row)) for layer, row in data["gains"].items()}
            conditions = data["conditions"]
        except FileNotFoundError:
            return {}, ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {}, f"{self._path} cannot be used and is made anew: {error or type(error).__name__}"
        if conditions != self._conditions:
            return {}, f"{self._path} is of another machine or build and is made anew"
        return found, ""

    def _write(self, gains: Mapping[str, KeptGain]) -> None:
        rows = {layer: asdict(gain) for layer, gain in gains.items()}
        data = {"conditions": self._conditions, "gains": rows}
        write_text(self._path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def open_kept_gains(*, threads: int | None, weight_bits: int) -> KeptGains:
    """Return the gains that were measured as this machine and these kernels would measure them now.

    They lie in the folder ``sparse-gains`` of the cache (``STEPDOWN_CACHE``, else ``~/.cache/stepdown``).

    Args:
        threads: Of ONNX Runtime; None takes the physical cores.
        weight_bits: Of the dense INT8 weights that layers are compared with.

    Raises:
        MissingDependency: there are no kernels.
    """
    machine = describe_machine(threads)
    conditions = {
        "machine": fingerprint(machine),
        "cpu": machine["cpu"],
        "isa": os.environ.get(ISA_VARIABLE, machine["isa"]),
        "threads": threads,
        "weight_bits": weight_bits,
        "onnxruntime": machine["versions"].get("onnxruntime"),
        "stepdown": version("stepdown"),
        "kernels": hash_file(library_path()),
    }
    name = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
    return KeptGains(cache_directory() / "sparse-gains" / f"{name}.json", conditions)


def _check_gain(kept: KeptGain) -> KeptGain:
    if not 0 < kept.gain < math.inf:
        raise ValueError(f"a gain of {kept.gain}")
    date.fromisoformat(kept.measured)
    return kept


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``: of two exports that read, add and write at once, one would lose its rows."""
    import fcntl  # there are kernels for Linux alone

    with path.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
