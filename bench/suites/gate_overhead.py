"""What the harness itself costs, and whether it favours a side: ``python -m bench.suites.gate_overhead``.

In: the models of the gate suite, at 16 tokens, where a run takes about 1 ms. Out: Markdown on stdout. Three questions,
each answered in one interleaved run:

- timing: blocks of :func:`bench.timing.measure.run_block` against bare loops of as many calls, in one process and
  session;
- turns: runs in turns of ten beside another model, as the gate takes them, against blocks in one piece;
- bias: a model against a slower one, and the slower one against it: without a bias the product of the ratios is 1.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.packages import cache_directory
from bench.subjects.process import SubjectProcess
from bench.subjects.session import open_session
from bench.suites.gate.suite import BASE, COPY, prepare_models
from bench.suites.gate.trials import make_spec, measure_pair
from bench.table import render_markdown
from bench.timing.compare import Comparison, compare
from bench.timing.measure import Clock, MeasurePlan, run_block
from bench.timing.samples import Samples
from runtimes.errors import StepdownError

# MiniLM in INT8 takes about 1 ms at 16 tokens on the machine of docs/benchmarks.md.
_SEQUENCE = 16
_ROUNDS, _RUNS, _RUNS_PER_TURN = 200, 30, 10
_SLOWER = "slow-10"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print all three."""
    parser = argparse.ArgumentParser(
        prog="bench.suites.gate_overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the turns, and for each order of the two (60)")
    parser.add_argument("--work", type=Path, default=cache_directory() / "bench-gate", help="the models")
    options = parser.parse_args(arguments)
    try:
        models = prepare_models(options.work, options.threads)
        with tempfile.TemporaryDirectory() as folder:
            feeds = _cut_feeds(models.feeds, Path(folder) / "feeds.npz")
            rows = list(_measure(models.paths, feeds, options.threads, options.seconds))
    except StepdownError as error:
        sys.stderr.write(f"gate_overhead: {error}\n")
        return error.exit_code
    sys.stdout.write(render_markdown(["what", "ratio [95 % bound]"], rows) + "\n")
    return 0


def _measure(paths: Mapping[str, Path], feeds: Path, threads: int, seconds: float) -> list[list[str]]:
    run_ms, timing = measure_timing(paths[BASE], feeds, threads)
    turns = measure_turns((paths[BASE], paths[COPY]), feeds, threads, seconds)
    base, slower = (make_spec(name, paths[name], threads) for name in (BASE, _SLOWER))
    forth = compare(*measure_pair(base, slower, feeds, seconds))
    back = compare(*measure_pair(slower, base, feeds, seconds))
    bias = math.sqrt(forth.ratio * back.ratio) - 1
    return [
        [f"timing over a bare loop, runs of {run_ms:.2f} ms", _show(timing)],
        [f"turns of {_RUNS_PER_TURN} beside another model over blocks of {_RUNS}", _show(turns)],
        ["base over slower, base given first", _show(forth)],
        ["slower over base, slower given first", _show(back)],
        ["bias of the place (root of the product, minus 1)", f"{bias:+.2%}"],
    ]


def measure_timing(model: Path, feeds: Path, threads: int) -> tuple[float, Comparison]:
    """Return the milliseconds of a run and the wall time of timed blocks over that of bare loops."""
    session = open_session(make_spec(BASE, model, threads)).session
    with np.load(feeds, allow_pickle=False) as arrays:
        call = session.prepare({name: arrays[name] for name in arrays.files})
    plan = MeasurePlan(pause_s=0.0, discard=0)

    def run_timed() -> None:
        run_block(call, _RUNS, plan, Clock())

    def run_bare() -> None:
        for _ in range(_RUNS):
            call()

    taken: dict[str, list[int]] = {"timed": [], "bare": []}
    ways: dict[str, Callable[[], None]] = {"timed": run_timed, "bare": run_bare}
    order = random.Random(0)
    for _ in range(_ROUNDS):
        for name in order.sample(list(ways), len(ways)):
            start_ns = time.perf_counter_ns()
            ways[name]()
            taken[name].append(time.perf_counter_ns() - start_ns)
    timed, bare = (_make_samples(name, [(ns,) for ns in taken[name]]) for name in ("timed", "bare"))
    return bare.median_ns() / _RUNS / 1e6, compare(timed, bare)


def measure_turns(paths: tuple[Path, Path], feeds: Path, threads: int, seconds: float) -> Comparison:
    """Return how long a run takes in turns over how long in one piece: meanwhile the other model used the caches."""
    taken: dict[str, list[tuple[int, ...]]] = {"turns": [], "pieces": []}
    with ExitStack() as stack:
        pair = [stack.enter_context(SubjectProcess(make_spec(path.stem, path, threads))) for path in paths]
        for process in pair:
            process.open()
            process.prepare(feeds)
            process.warm_up(0.3)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            taken["pieces"].append(pair[0].run_block(_RUNS, discard=1, pause_s=0.0))
            block: tuple[int, ...] = ()
            for _ in range(_RUNS // _RUNS_PER_TURN):
                block += pair[0].run_block(_RUNS_PER_TURN, discard=1, pause_s=0.0)
                pair[1].run_block(_RUNS_PER_TURN, discard=1, pause_s=0.0)
            taken["turns"].append(block)
    return compare(*(_make_samples(name, taken[name]) for name in ("turns", "pieces")))


def _cut_feeds(feeds: Path, out: Path) -> Path:
    with np.load(feeds, allow_pickle=False) as arrays:
        cut = {name: arrays[name][:, :_SEQUENCE] for name in arrays.files}
    np.savez(out, allow_pickle=False, **cut)
    return out


def _make_samples(label: str, blocks: Sequence[tuple[int, ...]]) -> Samples:
    return Samples(label=label, ns=tuple(blocks), warmup_ns=(), machine={})


def _show(found: Comparison) -> str:
    return f"{found.ratio:.4f} [{found.low:.4f}, {found.high:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
