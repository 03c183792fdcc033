"""What zeros are worth on a CPU: ``python -m bench.suites.sparse``.

In: MiniLM with its encoder pruned by magnitude, and single layers. Out: Markdown tables on stdout, everything measured
as JSON in ``bench/results``. The peak of a core in multiply-adds and a dense matrix product stand beside every table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import assets
from bench.machine.commit import find_commit
from bench.machine.description import describe_machine, probe_gemm_peak
from bench.machine.fma_peak import open_probe
from bench.packages import cache_directory
from bench.peers.deepsparse_session import open_deepsparse
from bench.recordings.recording import OpTime
from bench.subjects.per_op import profile_ops
from bench.subjects.subject import SubjectSpec
from bench.subjects.texts import make_feeds, open_tokenizer
from bench.suites.goals import Goal
from bench.suites.results import run_and_report
from bench.suites.sparse import layers as sparse_layers
from bench.suites.sparse import models as sparse_models
from bench.suites.sparse.goals import Models, judge_layers, judge_models
from bench.suites.sparse.peaks import Part, Peak, describe_peaks, name_pair, name_share
from bench.suites.sparse.tables import render_layers, render_models, render_profile
from bench.table import render_markdown
from bench.timing.measure import MeasurePlan
from runtimes.atomic import write_text

SHARES = (0.8, 0.9, 0.95)
MODEL_SHAPES = ((1, 1), (1, 16), (1, 128), (8, 128))
PARTS = ("models", "layers", "profile")
_PROFILED_SHARE, _PROFILED_SHAPE, _PROFILED_RUNS = 0.9, (8, 128), 20
_CALIBRATION_TEXTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything one run measured. ``models`` by share, threads, shape and subject; ``layers`` by threads."""

    commit: str | None
    machine: Mapping[str, Any]
    peaks: tuple[Peak, ...]
    sizes_bytes: Mapping[float, Mapping[str, int]]
    models: Models
    layers: Mapping[int, tuple[sparse_layers.LayerTime, ...]]
    profile: tuple[OpTime, ...]
    goals: tuple[Goal, ...]


class Run:
    """One run of the suite: what is asked for, and the peaks noted on the way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work or cache_directory() / "bench-sparse"
        self.work.mkdir(parents=True, exist_ok=True)
        self.peaks: list[Peak] = []
        self._probe = open_probe(self.work)
        self._files: dict[float, sparse_models.Files] = {}

    def note_peak(self, part: Part, threads: int, row: str = "", column: str = "") -> None:
        """Probe the machine before what stands in a table at ``row`` and ``column``, and say so."""
        peak = Peak(
            part=part,
            threads=threads,
            row=row,
            column=column,
            core_gflops=self._probe(),
            gemm_gflops=probe_gemm_peak(threads),
        )
        self.peaks.append(peak)
        place = " ".join(filter(None, (part, row, column)))
        _say(f"{place}, {threads} threads: {describe_peaks([peak])}")

    def find_files(self, share: float) -> sparse_models.Files:
        """Return the models of a share, made where they are not yet."""
        if share not in self._files:
            _say(f"{share:.0%}: pruning, exporting")
            texts = self.work / "calibration.txt"
            background = assets.lee().background.read_text(encoding="utf-8").splitlines()
            write_text(texts, "\n".join(background[:_CALIBRATION_TEXTS]) + "\n")
            keys = self.options.only
            self._files[share] = sparse_models.prepare_files(assets.minilm(), share, self.work, texts, keys=keys)
        return self._files[share]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = parse_options(arguments)
    return run_and_report("sparse", options.output, lambda: run_suite(options), serialise_results, render_results)


def serialise_results(results: Results) -> str:
    """Return everything as JSON; a figure that is no number is an error."""
    return json.dumps(asdict(results), sort_keys=True, allow_nan=False)


def run_suite(options: argparse.Namespace) -> Results:
    """Make and time everything asked for.

    Raises:
        MissingDependency: an asset, a compiler, a peer or the sparse kernels are not there.
        UnsupportedModel: an export fails.
    """
    run = Run(options)
    models = {share: _time_models(run, share) for share in options.share} if "models" in options.part else {}
    profile = _profile(run) if "profile" in options.part else ()
    layers: dict[int, tuple[sparse_layers.LayerTime, ...]] = {}
    goals = list(judge_models(models))
    for threads in options.threads if "layers" in options.part else ():
        layers[threads] = _time_layers(run, threads)
        goals += judge_layers(layers[threads], run.peaks, threads)
    run.note_peak("end", max(options.threads))
    return Results(
        commit=find_commit(),
        machine=describe_machine(max(options.threads)),
        peaks=tuple(run.peaks),
        sizes_bytes={share: dict(sparse_models.list_sizes(run.find_files(share))) for share in models},
        models=models,
        layers=layers,
        profile=profile,
        goals=tuple(goals),
    )


def _time_models(run: Run, share: float) -> dict[int, dict[str, dict[str, Any]]]:
    options, files = run.options, run.find_files(share)
    tokenizer = open_tokenizer(assets.minilm() / "tokenizer.json", max_length=128)
    plan = MeasurePlan(blocks=options.blocks, block_seconds=options.block_seconds)
    peer = open_deepsparse(cache_directory()) if sparse_models.DEEPSPARSE in options.only else None
    machine = describe_machine(max(options.threads))
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for threads in options.threads:
        for batch, length in options.shape:
            run.note_peak("models", threads, name_share(share), name_pair((batch, length)))
            found.setdefault(threads, {})[f"{batch}x{length}"] = sparse_models.time_models(
                files,
                make_feeds(tokenizer, batch, length),
                keys=options.only,
                threads=threads,
                plan=plan,
                deepsparse=peer,
                machine=machine,
            )
    return found


def _time_layers(run: Run, threads: int) -> tuple[sparse_layers.LayerTime, ...]:
    # Some 130 subjects share a round: short blocks keep a round within seconds, and what drifts hits all of them.
    plan = MeasurePlan(blocks=7, block_seconds=0.01, min_runs=3, max_runs=100, pause_s=0.003, warmup_seconds=0.02)
    times: list[sparse_layers.LayerTime] = []
    for layer in run.options.layer:
        for tokens in run.options.tokens:
            run.note_peak("layers", threads, name_pair(layer), str(tokens))
            times += sparse_layers.time_layers([layer], [tokens], threads=threads, plan=plan)
    return tuple(times)


def _profile(run: Run) -> tuple[OpTime, ...]:
    """Profile the float artifact: what is left when the products are sparse."""
    path = run.find_files(_PROFILED_SHARE).exported[sparse_models.FLOAT]
    spec = SubjectSpec(label="sparse", runtime="onnxruntime", device="cpu", model=path, kind="onnx", threads=2)
    tokenizer = open_tokenizer(assets.minilm() / "tokenizer.json", max_length=128)
    feeds = make_feeds(tokenizer, *_PROFILED_SHAPE)
    shape = name_pair(_PROFILED_SHAPE)
    run.note_peak("profile", 2, name_share(_PROFILED_SHARE), shape)
    return profile_ops(spec, feeds, _PROFILED_RUNS, shape=shape)


def render_results(results: Results) -> str:
    """Return the tables as Markdown."""
    machine = results.machine
    parts = [
        f"{machine['cpu']} ({machine['isa']}); over the run {describe_peaks(results.peaks)}",
        *render_models(results.models, results.sizes_bytes, results.peaks),
        *(text for threads, times in results.layers.items() for text in render_layers(times, threads, results.peaks)),
    ]
    if results.profile:
        parts.append(render_profile(results.profile, results.peaks))
    if results.goals:
        verdicts = [[goal.name, goal.wanted, goal.measured, goal.verdict.upper()] for goal in results.goals]
        parts.append(render_markdown(["to show", "wanted", "measured", ""], verdicts))
    return "\n\n".join(parts)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what is asked for. The profile is of the float artifact, so it needs that among the keys of ``--only``."""
    parser = argparse.ArgumentParser(prog="bench.suites.sparse", description=__doc__, allow_abbrev=False)
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable (all)")
    parser.add_argument("--share", type=float, action="append", metavar="X", help="pruned; repeatable (0.8 0.9 0.95)")
    parser.add_argument("--shape", type=_parse_pair, action="append", metavar="BxS", help="repeatable (the four)")
    parser.add_argument("--layer", type=_parse_pair, action="append", metavar="INxOUT", help="repeatable (the five)")
    parser.add_argument("--tokens", type=_parse_count, action="append", help="of a layer; repeatable (1 16 128 1024)")
    parser.add_argument("--threads", type=_parse_count, action="append", help="repeatable (2 1)")
    parser.add_argument("--only", type=_parse_keys, metavar="KEY,...", help=", ".join(sparse_models.TITLES))
    parser.add_argument("--blocks", type=_parse_count, default=15, help="rounds for each shape of a model (15)")
    parser.add_argument("--block-seconds", type=float, default=0.25, help="length of a block (0.25)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models and peers are kept")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    options = parser.parse_args(arguments)
    options.share = options.share or list(SHARES)
    options.shape = options.shape or list(MODEL_SHAPES)
    options.layer = options.layer or list(sparse_layers.SHAPES)
    options.tokens = options.tokens or list(sparse_layers.TOKENS)
    options.threads = options.threads or [2, 1]
    options.only = options.only or list(sparse_models.TITLES)
    if sparse_models.FLOAT not in options.only and "profile" in (options.part or ()):
        parser.error(f"--part profile is of {sparse_models.FLOAT}, which --only leaves out")
    options.part = options.part or [one for one in PARTS if one != "profile" or sparse_models.FLOAT in options.only]
    return options


def _parse_pair(text: str) -> tuple[int, int]:
    first, second = text.split("x")
    return _parse_count(first), _parse_count(second)


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"give a whole number above 0, not '{text}'")
    return int(text)


def _parse_keys(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in sparse_models.TITLES]
    if unknown or sparse_models.DENSE not in keys:
        titles = ", ".join(sparse_models.TITLES)
        raise argparse.ArgumentTypeError(f"give keys of {titles}, and {sparse_models.DENSE} among them")
    return keys


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
