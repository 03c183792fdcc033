"""How often the gate is right: hundreds of trials on identical and on slower models, ``python -m bench.suites.gate``.

In: MiniLM as stepdown exports it (about 5 ms at 1x128), the same with extra work in the graph. Out: Markdown tables on
stdout, every raw nanosecond in ``bench/results``. It goes on where it was when cut; ``--minutes`` cuts it. Keep the
machine to itself.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import assets
from bench.packages import cache_directory
from bench.peers import stepdown_cli
from bench.subjects.process import SubjectProcess
from bench.subjects.texts import make_feeds, open_tokenizer, select_feeds
from bench.suites.gate.slowdown import tune_work
from bench.suites.gate.tables import render_tables
from bench.suites.gate.trials import (
    TrialKind,
    append_trial,
    choose_next,
    make_spec,
    measure_pair,
    read_trials,
    run_trial,
    widen,
)
from bench.timing.compare import resample_paired
from runtimes.errors import Inconclusive, StepdownError

BASE, COPY = "base", "copy"
SLOWDOWNS = {"slow-3": 0.03, "slow-5": 0.05, "slow-10": 0.10, "slow-20": 0.20}
# The budget ends the rounds; starting and the probes of the machine add up to a second.
KINDS = {
    kind.name: kind
    for kind in (
        TrialKind(name="same", head=COPY, budget_s=9, wanted=300),
        TrialKind(name="busy", head=COPY, budget_s=9, wanted=40, neighbour=True),
        TrialKind(name="slow-3", head="slow-3", budget_s=9, wanted=60, max_growth=1),
        TrialKind(name="slow-5", head="slow-5", budget_s=29, wanted=60, max_growth=1),
        TrialKind(name="slow-10", head="slow-10", budget_s=9, wanted=60, max_growth=1),
        TrialKind(name="slow-20", head="slow-20", budget_s=9, wanted=60, max_growth=1),
    )
}
_TUNING_SECONDS = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The models by name and the ``.npz`` they are run on."""

    paths: Mapping[str, Path]
    feeds: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left of the campaign, or as much as the time allows, and print the tables."""
    options = _parse(arguments)
    try:
        models = prepare_models(options.work, options.threads)
        run_campaign(models, options)
    except StepdownError as error:
        sys.stderr.write(f"gate: {error}\n")
        return error.exit_code
    sys.stdout.write(render_tables(read_trials(options.output)) + f"\n\nRaw samples: {options.output}\n")
    return 0


def run_campaign(models: Models, options: argparse.Namespace) -> None:
    """Run trials until every kind has as many as wanted, or the time is up."""
    kinds = widen(KINDS, options.scale)
    done = Counter(trial.kind for trial in read_trials(options.output))
    end_s = time.monotonic() + options.minutes * 60
    while time.monotonic() < end_s:
        kind = choose_next(kinds, done, sum(done.values()))
        if kind is None:
            return
        number = done[kind.name]
        base, head = (make_spec(name, models.paths[name], options.threads) for name in (BASE, kind.head))
        trial = run_trial(kind, number, base, head, models.feeds)
        append_trial(options.output, trial)
        done[kind.name] += 1
        _say(f"{kind.name} {done[kind.name]}/{kind.wanted}: {trial.verdict} in {trial.seconds:.1f} s")


def prepare_models(work: Path, threads: int) -> Models:
    """Export MiniLM, copy it, and make the slower ones; what is there is kept."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = assets.minilm()
    paths = {name: work / f"{name}.onnx" for name in (BASE, COPY, *SLOWDOWNS)}
    if not paths[BASE].is_file():
        _say("exporting MiniLM")
        exported = stepdown_cli.export(checkpoint, assets.lee().background, work / "stepdown", threads=threads)
        shutil.copyfile(exported.path / "onnxruntime" / "model.onnx", paths[BASE])
    if not paths[COPY].is_file():
        shutil.copyfile(paths[BASE], paths[COPY])
    feeds = work / "feeds.npz"
    with SubjectProcess(make_spec(BASE, paths[BASE], threads)) as process:
        tokenizer = open_tokenizer(checkpoint / "tokenizer.json", max_length=128)
        np.savez(feeds, allow_pickle=False, **select_feeds(process.open().inputs, make_feeds(tokenizer, 1, 128)))
    measure = measure_slowdown_with(feeds, threads)
    for name, share in SLOWDOWNS.items():
        if not paths[name].is_file():
            _make_slower(paths[BASE], paths[name], share, measure)
    return Models(paths=paths, feeds=feeds)


def _make_slower(base: Path, out: Path, share: float, measure: Callable[[Path, Path], float]) -> None:
    """Tune in a file of another name, so that a run that is cut leaves nothing that looks finished."""
    draft = out.with_suffix(".draft")
    try:
        tuned = tune_work(base, draft, share, measure)
        _say(f"{out.stem}: {tuned.units} pieces of extra work, {tuned.share:.2%} slower")
    except Inconclusive as error:
        # The draft is the nearest; what it really costs is measured by all its trials together, and reported.
        _say(f"{out.stem}: {error.what}")
    draft.rename(out)


def measure_slowdown_with(feeds: Path, threads: int) -> Callable[[Path, Path], float]:
    """Return the function that tunes: time of head over time of base, in 40 s."""

    def measure(base: Path, head: Path) -> float:
        specs = make_spec(BASE, base, threads), make_spec("head", head, threads)
        ours, theirs = measure_pair(*specs, feeds, _TUNING_SECONDS)
        return math.exp(-resample_paired(ours, theirs).center)

    return measure


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.suites.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long (when all is done)")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many trials (1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=cache_directory() / "bench-gate", help="the models")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/gate-trials.jsonl"))
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
