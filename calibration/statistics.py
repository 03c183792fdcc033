"""The statistics of one calibration: of every tensor, with what model, data and shards they come from.

In: shards from :mod:`calibration.collect`. Out: one value, and a file with deterministic bytes (safetensors whose
single metadata entry is sorted JSON: no pickle, no timestamp). Merging all shards gives the bytes of the undivided run.
Must not import a runtime.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import SIDE_BINS, Histogram
from calibration.magnitudes import merge_magnitudes
from calibration.tensor_statistics import TensorStatistics
from runtimes.atomic import write_bytes
from runtimes.errors import CorruptArtifact, DataError

_METADATA_KEY = "stepdown"
_FORMAT = "stepdown-statistics-2"
_CURE_REBUILD = "calibrate again, or fetch the file again"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationStatistics:
    """Statistics by tensor name, and their provenance.

    ``shards`` of ``shard_count`` are covered; a complete set is always written as shard 0 of 1. ``samples`` counts the
    data's samples, ``dataset_sha256`` covers the whole data (not one shard) and how it is cut into batches.
    ``magnitudes`` holds the largest magnitude of every float value of the graph, the fillings of masks left out.
    """

    model_sha256: str
    dataset_sha256: str
    shard_count: int
    shards: tuple[int, ...]
    samples: int
    tensors: Mapping[str, TensorStatistics]
    magnitudes: Mapping[str, float] = field(default_factory=dict)

    def missing_shards(self) -> tuple[int, ...]:
        """Return the shards that have not been merged in."""
        return tuple(sorted(set(range(self.shard_count)) - set(self.shards)))

    def dead_tensors(self) -> tuple[str, ...]:
        """Return the names of the tensors that were zero throughout: nothing downstream of them can be calibrated."""
        return tuple(name for name, tensor in self.tensors.items() if tensor.is_dead())


def merge(first: CalibrationStatistics, second: CalibrationStatistics) -> CalibrationStatistics:
    """Return the statistics of both sets of shards; the order does not matter.

    Raises:
        DataError: other models, other data, another number of shards, or a shard given twice.
    """
    where = f"shards {_name(first)} and {_name(second)}"
    cure = "merge the shards of one model, one data set and one shard count, each once"
    for name, meaning in (
        ("model_sha256", "different models"),
        ("dataset_sha256", "different data, or data read with other options"),
        ("shard_count", "different shard counts"),
    ):
        if getattr(first, name) != getattr(second, name):
            raise DataError(f"the statistics come from {meaning}", where=where, cure=cure)
    twice = sorted(set(first.shards) & set(second.shards))
    if twice:
        raise DataError(f"shard {twice[0]}/{first.shard_count} was given twice", where=where, cure=cure)
    if set(first.tensors) != set(second.tensors):
        odd = sorted(set(first.tensors) ^ set(second.tensors))[0]
        raise DataError(f"tensor {odd!r} is in one of them only", where=where, cure=cure)
    shards = tuple(sorted((*first.shards, *second.shards)))
    complete = len(shards) == first.shard_count
    return CalibrationStatistics(
        model_sha256=first.model_sha256,
        dataset_sha256=first.dataset_sha256,
        shard_count=1 if complete else first.shard_count,
        shards=(0,) if complete else shards,
        samples=first.samples + second.samples,
        tensors={name: tensor.merge(second.tensors[name]) for name, tensor in first.tensors.items()},
        magnitudes=merge_magnitudes(first.magnitudes, second.magnitudes),
    )


def merge_files(paths: Sequence[Path]) -> CalibrationStatistics:
    """Read and merge files, one in memory at a time, and require that together they are the whole run.

    Raises:
        DataError: as :func:`merge`, or a shard is missing (named).
        CorruptArtifact: a file cannot be read.
    """
    if not paths:
        raise DataError("there is no statistics file to merge", cure="name the files that the shards wrote")
    merged = functools.reduce(merge, map(read, paths))
    refuse_incomplete(merged)
    return merged


def refuse_incomplete(statistics: CalibrationStatistics) -> None:
    """Raise DataError naming the shards that are missing."""
    missing = [f"{shard}/{statistics.shard_count}" for shard in statistics.missing_shards()]
    if missing:
        raise DataError(f"missing shard {', '.join(missing)}", cure="run the missing shards and merge all of them")


def _name(statistics: CalibrationStatistics) -> str:
    return ",".join(f"{shard}/{statistics.shard_count}" for shard in statistics.shards)


def write(path: Path, statistics: CalibrationStatistics) -> None:
    """Write ``statistics``; equal statistics give equal bytes.

    Raises:
        OutputError: no room, or no permission.
    """
    from safetensors.numpy import save

    names = sorted(statistics.tensors)
    header: dict[str, Any] = {
        "format": _FORMAT,
        "model_sha256": statistics.model_sha256,
        "dataset_sha256": statistics.dataset_sha256,
        "shard_count": statistics.shard_count,
        "shards": list(statistics.shards),
        "samples": statistics.samples,
        "tensors": [_describe(name, statistics.tensors[name]) for name in names],
        "magnitudes": dict(statistics.magnitudes),
    }
    arrays: dict[str, NDArray[Any]] = {}
    for number, name in enumerate(names):
        for part, array in _arrays(statistics.tensors[name]).items():
            arrays[f"{number}.{part}"] = np.ascontiguousarray(array)
    write_bytes(path, save(arrays, metadata={_METADATA_KEY: json.dumps(header, sort_keys=True)}))


def _describe(name: str, tensor: TensorStatistics) -> dict[str, Any]:
    return {
        "name": name,
        "capacity": tensor.capacity,
        "rows": tensor.rows,
        "zeros": tensor.zeros,
        "exponent": tensor.histogram.exponent,
    }


def _arrays(tensor: TensorStatistics) -> dict[str, NDArray[Any]]:
    return {
        "minimum": tensor.minimum,
        "maximum": tensor.maximum,
        "sum_high": tensor.sum_high,
        "sum_low": tensor.sum_low,
        "counts": tensor.histogram.counts,
        "sample_keys": tensor.sample_keys,
        "sample": tensor.sample,
    }


def read(path: Path) -> CalibrationStatistics:
    """Read what :func:`write` wrote.

    Raises:
        DataError: there is no such file.
        CorruptArtifact: it is truncated, damaged, or a file of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError("there is no such statistics file", where=str(path), cure="check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
            if metadata is None:
                raise CorruptArtifact("not a statistics file", where=str(path), cure=_CURE_REBUILD)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(f"not a statistics file: {error}", where=str(path), cure=_CURE_REBUILD) from error
    try:
        return _assemble(json.loads(metadata), arrays)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"damaged statistics: {error!r}", where=str(path), cure=_CURE_REBUILD) from error


def _assemble(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> CalibrationStatistics:
    if header["format"] != _FORMAT:
        raise ValueError(f"format {header['format']}, this stepdown reads {_FORMAT}")
    return CalibrationStatistics(
        model_sha256=header["model_sha256"],
        dataset_sha256=header["dataset_sha256"],
        shard_count=header["shard_count"],
        shards=tuple(header["shards"]),
        samples=header["samples"],
        tensors={
            entry["name"]: _assemble_tensor(entry, {part: arrays[f"{number}.{part}"] for part in _PARTS})
            for number, entry in enumerate(header["tensors"])
        },
        magnitudes={name: float(value) for name, value in header["magnitudes"].items()},
    )


def _assemble_tensor(entry: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> TensorStatistics:
    channels, kept = len(parts["minimum"]), len(parts["sample_keys"])
    for part, (dtype, shape) in _PARTS.items():
        wanted = tuple({"C": channels, "S": kept}.get(str(axis), axis) for axis in shape)
        if parts[part].dtype != dtype or parts[part].shape != wanted:
            raise ValueError(f"{entry['name']}: {part} is {parts[part].dtype}{parts[part].shape}")
    return TensorStatistics(
        capacity=entry["capacity"],
        rows=entry["rows"],
        zeros=entry["zeros"],
        minimum=parts["minimum"],
        maximum=parts["maximum"],
        sum_high=parts["sum_high"],
        sum_low=parts["sum_low"],
        histogram=Histogram(exponent=entry["exponent"], counts=parts["counts"]),
        sample_keys=parts["sample_keys"],
        sample=parts["sample"],
    )


#: Dtype and shape of every stored array; C channels, S sampled rows.
_PARTS: Mapping[str, tuple[type[np.generic], tuple[str | int, ...]]] = {
    "minimum": (np.float32, ("C",)),
    "maximum": (np.float32, ("C",)),
    "sum_high": (np.int64, ("C",)),
    "sum_low": (np.int64, ("C",)),
    "counts": (np.int64, (2 * SIDE_BINS - 1,)),
    "sample_keys": (np.uint64, ("S",)),
    "sample": (np.float32, ("S", "C")),
}
