"""Every way to make a model smaller, with what it costs and brings: ``python -m bench.suites.compression``.

In: MiniLM, Reuters R8 and the movie sentences (:mod:`bench.assets`). Out: Markdown tables and goals on stdout, all that
was measured as JSON in ``bench/results``.

It takes hours, in pieces: every row is a folder in the cache and, once it is finished, a small record (``--records``).
A training that was stopped goes on, and what is recorded is not made again. ``--minutes 10`` stops by itself. The
tables show all records, made now or before; ``--show`` makes nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import assets
from bench.machine.commit import find_commit
from bench.machine.description import describe_machine
from bench.packages import cache_directory
from bench.suites.compression.commands import Commands
from bench.suites.compression.data import MOVIES, SOURCES, TaskData, prepare_task
from bench.suites.compression.goals import judge_all
from bench.suites.compression.make import Bench, Teacher, make_row, make_teacher
from bench.suites.compression.peers import PEERS, Pair, compare_with_peer, read_pairs
from bench.suites.compression.records import Record, read_records
from bench.suites.compression.resume import Resumed, measure_resuming, read_resumed, write_resumed
from bench.suites.compression.rows import ROWS
from bench.suites.compression.tables import render_records
from bench.suites.goals import Goal
from bench.suites.results import run_and_report
from bench.timing.measure import MeasurePlan
from runtimes.errors import Inconclusive, MissingDependency, UnsupportedModel

_RESUME = "resume"
PARTS = ("headline", "bounds", "quantisation", "methods", "peers", _RESUME)
# Enough to meet every kind of state, few enough for one thread to be done in a minute or two.
_RESUME_SAMPLES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything there is; ``failures`` says of a row why it is not there."""

    commit: str | None
    machine: Mapping[str, Any]
    records: Mapping[tuple[str, str], Sequence[Record]]
    pairs: tuple[Pair, ...]
    resumed: Resumed | None
    failures: Mapping[str, str]
    goals: tuple[Goal, ...]


class Suite:
    """One run: what is asked for, and the tasks opened on the way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
        work = options.work or cache_directory() / "bench-compression"
        self.bench = Bench(
            work=work,
            records=options.records or work / "records",
            commands=Commands(threads=options.threads, train_threads=options.train_threads, until=until),
            plan=MeasurePlan(blocks=options.blocks),
            say=_say,
            timed=not options.untimed,
        )
        self.failures: dict[str, str] = {}
        self._tasks: dict[str, tuple[TaskData, Teacher]] = {}

    def run(self) -> Results:
        """Make what is asked for until the time is up, and return all that is there."""
        try:
            for part in () if self.options.show else self.options.part:
                self._run_part(part)
        except Inconclusive as error:
            _say(str(error))
        kept = self.bench.records
        records, pairs, resumed = read_records(kept), read_pairs(kept), read_resumed(kept)
        judged = [*(pair.judge() for pair in pairs), *([resumed.judge()] if resumed else [])]
        return Results(
            commit=find_commit(),
            machine=describe_machine(self.options.threads),
            records=records,
            pairs=pairs,
            resumed=resumed,
            failures=self.failures,
            goals=(*judge_all(records), *judged),
        )

    def _run_part(self, part: str) -> None:
        if part == _RESUME:
            self._attempt(_RESUME, self._resume)
        elif part == "peers":
            for key in self._choose(PEERS):
                self._attempt(key, partial(self._compare, key))
        else:
            for key, task, seed in self._list_rows(part):
                self._attempt(f"{task} {key} seed {seed}", partial(self._make, key, task, seed))

    def _list_rows(self, part: str) -> list[tuple[str, str, int]]:
        """Return (key, task, seed): the first seed of everything before the second of anything."""
        chosen = [key for key in self._choose(ROWS) if ROWS[key].part == part]
        found = [(key, task, seed) for key in chosen for task in ROWS[key].tasks for seed in ROWS[key].seeds]
        wanted = [one for one in found if one[1] in self.options.task and one[2] in self.options.seed]
        return sorted(wanted, key=lambda one: one[2])

    def _choose(self, keys: Mapping[str, object]) -> list[str]:
        return [key for key in keys if not self.options.only or key in self.options.only]

    def _make(self, key: str, task: str, seed: int) -> None:
        data, teacher = self._open_task(task)
        make_row(self.bench, key, ROWS[key], data, teacher, seed)

    def _compare(self, key: str) -> None:
        data, teacher = self._open_task(MOVIES)
        compare_with_peer(key, self.bench, data, teacher)

    def _resume(self) -> None:
        if read_resumed(self.bench.records) is not None:
            return
        _, teacher = self._open_task(MOVIES)
        data = prepare_task(MOVIES, self.bench.work / "data" / _RESUME, limit=self.options.limit or _RESUME_SAMPLES)
        self.bench.commands.check_time()
        _say("killing and resuming")
        resumed = measure_resuming(teacher.checkpoint, data, self.bench.work / _RESUME, kills=self.options.kills)
        write_resumed(self.bench.records, resumed)

    def _open_task(self, task: str) -> tuple[TaskData, Teacher]:
        if task not in self._tasks:
            data = prepare_task(task, self.bench.work / "data" / task, limit=self.options.limit)
            self._tasks[task] = data, make_teacher(self.bench, self.options.model or assets.minilm(), data)
        return self._tasks[task]

    def _attempt(self, name: str, make: Callable[[], None]) -> None:
        """Make a row; one that cannot be made says why in its place, and the others are made."""
        try:
            make()
        except (UnsupportedModel, MissingDependency) as error:
            _say(f"{name}: {error}")
            self.failures[name] = error.what


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; see ``--help``."""
    options = parse_options(arguments)
    # So that what was started is ended with us, and keeps its state.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_and_report("compression", options.output, Suite(options).run, serialise_results, render_results)


def serialise_results(results: Results) -> str:
    """Return everything as JSON; a figure that is no number is an error."""
    records = [asdict(one) for some in results.records.values() for one in some]
    document = {
        "commit": results.commit,
        "machine": results.machine,
        "records": records,
        "pairs": [asdict(pair) for pair in results.pairs],
        "resumed": asdict(results.resumed) if results.resumed else None,
        "failures": results.failures,
        "goals": [asdict(goal) for goal in results.goals],
    }
    return json.dumps(document, sort_keys=True, allow_nan=False)


def render_results(results: Results) -> str:
    """Return the tables as Markdown."""
    cpus = sorted({one.origin.cpu for some in results.records.values() for one in some})
    parts = [f"Measured on {', '.join(cpus or [results.machine['cpu']])}."]
    parts += render_records(results.records, results.failures, results.goals)
    return "\n\n".join(parts)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(
        prog="bench.suites.compression",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="repeatable (all)")
    parser.add_argument("--only", type=_parse_keys, metavar="KEY,...", help=", ".join([*ROWS, *PEERS]))
    parser.add_argument("--task", action="append", choices=list(SOURCES), help="repeatable (both)")
    parser.add_argument("--seed", type=int, action="append", choices=(0, 1, 2), help="repeatable (all)")
    parser.add_argument("--show", action="store_true", help="make nothing, show what is there")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop after so long; the next run goes on")
    parser.add_argument("--untimed", action="store_true", help="time nothing: the next run does, on a quiet machine")
    parser.add_argument("--kills", type=int, default=5, help="of the part resume (5)")
    parser.add_argument("--threads", type=int, default=2, help="to train, export and run with (2)")
    parser.add_argument("--train-threads", type=int, metavar="N", help="to train with, where it is not the same")
    parser.add_argument("--blocks", type=int, default=15, help="rounds of timing for each shape (15)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the encoder (MiniLM)")
    parser.add_argument("--limit", type=int, metavar="N", help="samples of each file, to try the suite (all)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where rows are made (in the cache)")
    parser.add_argument(
        "--records",
        type=Path,
        metavar="DIR",
        help="where records are kept (in --work); remove one to make its row anew",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("bench/results"), help="where results go")
    options = parser.parse_args(arguments)
    options.part = options.part or list(PARTS)
    options.task = options.task or list(SOURCES)
    options.seed = options.seed or [0, 1, 2]
    return options


def _parse_keys(text: str) -> list[str]:
    keys = text.split(",")
    known = [*ROWS, *PEERS]
    if unknown := [key for key in keys if key not in known]:
        raise argparse.ArgumentTypeError(f"no row is called {', '.join(unknown)}; they are {', '.join(known)}")
    return keys


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
