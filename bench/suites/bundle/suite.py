"""What a bundle weighs, how fast it answers first, and whether packing repeats: ``python -m bench.suites.bundle``.

In: MiniLM (:mod:`bench.assets`), exported to INT8 and, pruned, to sparse INT8, or exports that are given. Out: Markdown
tables on stdout and every figure as JSON in ``bench/results``. Three parts: ``size`` (bundles, and what a device
installs beside transformers), ``start`` (a new process to its first answer, beside transformers and plain ONNX
Runtime), ``repeat`` (the same export packed under other clocks, locales, umasks, users and paths).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import assets
from bench.machine.description import describe_machine
from bench.packages import cache_directory
from bench.peers import stepdown_cli
from bench.pruned import prune_checkpoint
from bench.suites.bundle.environments import DEVICE, TRANSFORMERS, Environment, make_environments
from bench.suites.bundle.repeat import Packed, pack_repeatedly
from bench.suites.bundle.start import BUNDLE, ONNX_RUNTIME, Start, Subject, measure_starts
from bench.suites.bundle.start import TRANSFORMERS as TRANSFORMERS_PROGRAM
from bench.suites.bundle.tables import PLAIN, REFERENCE, SERVED, UNPACKED, render
from bench.suites.results import run_and_report

INT8, SPARSE = "MiniLM, INT8", "MiniLM, sparse INT8"
GOALS_BYTES: Mapping[str, int] = {INT8: 24_000_000, SPARSE: 12_000_000}
PARTS = ("size", "start", "repeat")
# Of every linear: where unstructured sparsity pays on any CPU, and the whole fits its goal.
_PRUNED = 0.9
_NAME = "minilm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
        parts: Some of PARTS.
        exports: An exported directory by title, where not MiniLM's own.
        device: The profile that is packed for.
        rounds: Starts of each subject.
        packs: How often the repeat part packs.
        threads: Of calibration and of every subject.
        work: Where exports, bundles and environments are kept.
    """

    parts: tuple[str, ...]
    exports: Mapping[str, Path]
    device: str
    rounds: int
    packs: int
    threads: int
    work: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that was measured; what was not asked for is empty."""

    machine: Mapping[str, Any]
    sizes: Mapping[str, int] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    starts: Mapping[str, tuple[Start, ...]] = field(default_factory=dict)
    packed: tuple[Packed, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns an exit code."""
    parser = argparse.ArgumentParser(
        prog="bench.suites.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="what to measure (repeatable; all)")
    parser.add_argument("--int8", type=Path, metavar="DIR", help="an export of MiniLM to INT8 (made)")
    parser.add_argument("--sparse", type=Path, metavar="DIR", help="an export of pruned MiniLM to INT8 (made)")
    parser.add_argument("--device", default="x86-64-vnni", help="the profile to pack for (x86-64-vnni)")
    parser.add_argument("--rounds", type=int, default=20, help="starts of each subject (20)")
    parser.add_argument("--packs", type=int, default=20, help="times the repeat part packs (20)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every subject (all cores)")
    parser.add_argument("--work", type=Path, default=cache_directory() / "bench-bundle")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results"))
    told = parser.parse_args(arguments)
    options = Options(
        parts=tuple(told.part or PARTS),
        exports={title: path for title, path in {INT8: told.int8, SPARSE: told.sparse}.items() if path is not None},
        device=told.device,
        rounds=told.rounds,
        packs=told.packs,
        threads=told.threads,
        work=told.work,
    )
    return run_and_report("bundle", told.output, partial(measure, options), _serialise, _render)


def measure(options: Options) -> Results:
    """Make what is missing and measure the parts."""
    options.work.mkdir(parents=True, exist_ok=True)
    needed = (INT8, SPARSE) if "size" in options.parts else (INT8,)
    exports = {title: options.exports.get(title) or _export(title, options) for title in needed}
    bundles = {title: _pack(title, export, options) for title, export in exports.items()}
    wants_environments = {"size", "start"} & set(options.parts)
    environments = make_environments(options.work) if wants_environments else {}
    starts: Mapping[str, tuple[Start, ...]] = {}
    if "start" in options.parts:
        subjects = _list_subjects(bundles[INT8], environments, options)
        starts = measure_starts(subjects, rounds=options.rounds, threads=options.threads)
    repeat = "repeat" in options.parts
    packed = pack_repeatedly(exports[INT8], count=options.packs, options=("--device", options.device)) if repeat else ()
    return Results(
        machine=describe_machine(options.threads),
        sizes={title: path.stat().st_size for title, path in bundles.items()} if "size" in options.parts else {},
        environments=environments if "size" in options.parts else {},
        starts=starts,
        packed=packed,
    )


def _export(title: str, options: Options) -> Path:
    """Export MiniLM, unless it is there."""
    target = options.work / _make_name(title)
    if not (target / "manifest.json").is_file():
        model, texts = assets.minilm(), assets.lee().background
        if title == SPARSE:
            model = prune_checkpoint(model, _PRUNED, options.work / "pruned")
        stepdown_cli.export(model, texts, target, threads=options.threads, options=("--precision", "int8"))
    return target


def _pack(title: str, export: Path, options: Options) -> Path:
    bundle = options.work / f"{_make_name(title)}.stepdown.tar.gz"
    words = ["pack", str(export), "-o", str(bundle), "--force", "--name", _NAME, "--licence", "Apache-2.0"]
    stepdown_cli.call(*words, "--device", options.device)
    return bundle


def _make_name(title: str) -> str:
    return title.replace(",", "").replace(" ", "-").lower()


def _list_subjects(bundle: Path, environments: Mapping[str, Environment], options: Options) -> Mapping[str, Subject]:
    """Return who starts: the bundle as installed and as an archive in the cache, plain ONNX Runtime, transformers."""
    device, peers = environments[DEVICE].python, environments[TRANSFORMERS].python
    root = options.work / "root"
    shutil.rmtree(root, ignore_errors=True)
    stepdown_cli.call("install", str(bundle), "--root", str(root))
    plain = stepdown_cli.trace_float(assets.minilm(), options.work / "float").parent
    return {
        SERVED: Subject(python=device, program=BUNDLE, model=root / _NAME),
        UNPACKED: Subject(python=device, program=BUNDLE, model=bundle),
        PLAIN: Subject(python=device, program=ONNX_RUNTIME, model=plain),
        REFERENCE: Subject(python=peers, program=TRANSFORMERS_PROGRAM, model=assets.minilm()),
    }


def _serialise(results: Results) -> str:
    return json.dumps(asdict(results), indent=2, sort_keys=True, default=str)


def _render(results: Results) -> str:
    sizes = {title: (size, GOALS_BYTES[title]) for title, size in results.sizes.items()}
    return render(sizes, results.environments, results.starts, results.packed)
