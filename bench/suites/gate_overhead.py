"""What the harness itself costs, and whether it favours a side: ``python -m bench.suites.gate_overhead``.

In: the models of the gate suite. Out: Markdown on stdout. Two questions, each answered in one interleaved run:

- a block of :func:`bench.measure.run_block` against a bare loop of as many calls, in one process and session, on a
  model of about 1 ms: whole wall time of both, pause left out;
- a model against one 10 % slower, and the slower one against it: the product of the two ratios is 1 without a bias.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench import assets
from bench.compare import Comparison, compare
from bench.measure import Clock, MeasurePlan, run_block
from bench.samples import Samples
from bench.subject_session import open_session
from bench.suites.gate import BASE, prepare_models
from bench.suites.gate_trials import make_spec, measure_pair
from bench.table import render_markdown
from runtimes.errors import StepdownError

# MiniLM in INT8 takes about 1 ms at 16 tokens on the machine of docs/benchmarks.md.
_SEQUENCE = 16
_ROUNDS, _RUNS = 200, 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=90.0, help="for each order of the two models (90)")
    parser.add_argument("--work", type=Path, default=assets.cache_directory() / "bench-gate", help="the models")
    options = parser.parse_args(arguments)
    try:
        models = prepare_models(options.work, options.threads)
        run_ms, cost = measure_overhead(models.paths[BASE], models.feeds, options.threads)
        base, slow = (make_spec(name, models.paths[name], options.threads) for name in (BASE, "slow-10"))
        forth = compare(*measure_pair(base, slow, models.feeds, options.seconds))
        back = compare(*measure_pair(slow, base, models.feeds, options.seconds))
    except StepdownError as error:
        sys.stderr.write(f"gate_overhead: {error}\n")
        return error.exit_code
    bias = math.sqrt(forth.ratio * back.ratio) - 1
    rows = [
        [f"harness over a bare loop, runs of {run_ms:.2f} ms", _show(cost)],
        ["base over slower, base given first", _show(forth)],
        ["slower over base, slower given first", _show(back)],
        ["bias of the place (root of the product, minus 1)", f"{bias:+.2%}"],
    ]
    sys.stdout.write(render_markdown(["what", "ratio [95 % bound]"], rows) + "\n")
    return 0


def measure_overhead(model: Path, feeds: Path, threads: int) -> tuple[float, Comparison]:
    """Return the milliseconds of a run and the wall time of harnessed blocks over that of bare loops."""
    session = open_session(make_spec(BASE, model, threads)).session
    with np.load(feeds, allow_pickle=False) as arrays:
        call = session.prepare({name: arrays[name][:, :_SEQUENCE] for name in arrays.files})
    plan = MeasurePlan(pause_s=0.0, discard=0)

    def run_harnessed() -> None:
        run_block(call, _RUNS, plan, Clock())

    def run_bare() -> None:
        for _ in range(_RUNS):
            call()

    taken: dict[str, list[int]] = {"harness": [], "bare": []}
    ways: dict[str, Callable[[], None]] = {"harness": run_harnessed, "bare": run_bare}
    order = random.Random(0)
    for _ in range(_ROUNDS):
        for name in order.sample(list(ways), len(ways)):
            start_ns = time.perf_counter_ns()
            ways[name]()
            taken[name].append(time.perf_counter_ns() - start_ns)
    harness, bare = (
        Samples(label=name, ns=tuple((ns,) for ns in taken[name]), warmup_ns=(), machine={}) for name in taken
    )
    # The first rounds warm up both ways alike.
    return bare.median_ns() / _RUNS / 1e6, compare(harness, bare)


def _show(found: Comparison) -> str:
    return f"{found.ratio:.4f} [{found.low:.4f}, {found.high:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
