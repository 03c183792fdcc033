"""Which way of taking turns leaves two equal models equal: ``python -m bench.suites.interleaving``.

In: two copies of one model of about 5 ms (those of the gate suite). Out: a Markdown table on stdout. Every scheme is
tried several times with new processes, the schemes in turn. In a good one rounds scatter little, few are far off, and
the trials differ by no more than the scatter of their rounds explains: what is beyond that no longer run averages out.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.packages import cache_directory
from bench.subjects.process import SubjectProcess
from bench.suites.gate.suite import BASE, COPY, prepare_models
from bench.suites.gate.trials import make_spec
from bench.table import render_markdown
from runtimes.errors import StepdownError

_FAR = 0.04
_WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How two sessions take turns within a round, and whether they are opened anew for it.

    Of each turn ``discard`` runs do not count and ``runs`` do, after ``pause_s``; ``stops`` stops the other meanwhile.
    """

    turns: int
    runs: int
    discard: int
    pause_s: float
    stops: bool
    anew: bool


SCHEMES = {
    "single runs, both sessions awake": Scheme(turns=20, runs=1, discard=0, pause_s=0, stops=False, anew=False),
    "blocks of 20 after 30 ms": Scheme(turns=1, runs=20, discard=2, pause_s=0.03, stops=False, anew=False),
    "the same, opened anew": Scheme(turns=1, runs=20, discard=2, pause_s=0.03, stops=False, anew=True),
    "ten turns of 2 after 30 ms, anew": Scheme(turns=10, runs=2, discard=1, pause_s=0.03, stops=False, anew=True),
    "blocks of 20, the other stopped, anew": Scheme(turns=1, runs=20, discard=2, pause_s=0, stops=True, anew=True),
    "ten turns of 2, the other stopped": Scheme(turns=10, runs=2, discard=1, pause_s=0, stops=True, anew=False),
    "ten turns of 2, the other stopped, anew (ours)": Scheme(
        turns=10, runs=2, discard=1, pause_s=0, stops=True, anew=True
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every scheme and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="bench.suites.interleaving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trials", type=int, default=8, help="with new processes, of each scheme (8)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each trial (8)")
    parser.add_argument("--work", type=Path, default=cache_directory() / "bench-gate", help="the models")
    options = parser.parse_args(arguments)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in SCHEMES}
    try:
        models = prepare_models(options.work, options.threads)
        for number in range(options.trials):
            for name, scheme in SCHEMES.items():
                paths = models.paths[BASE], models.paths[COPY]
                found[name].append(
                    try_scheme(scheme, paths, models.feeds, options.threads, options.seconds, seed=number)
                )
    except StepdownError as error:
        sys.stderr.write(f"interleaving: {error}\n")
        return error.exit_code
    header = [
        "A/A, one model of about 5 ms",
        "rounds in 10 s",
        "scatter",
        "off by > 4 %",
        "between trials",
        "explained",
    ]
    rows = [[name, *describe(trials, options.seconds)] for name, trials in found.items()]
    sys.stdout.write(render_markdown(header, rows) + "\n")
    return 0


def try_scheme(
    scheme: Scheme, paths: tuple[Path, Path], feeds: Path, threads: int, seconds: float, *, seed: int
) -> NDArray[np.float64]:
    """Return the logarithm of the ratio of the two medians in every round that fits into ``seconds``."""
    draw, ratios, end_s = random.Random(seed), [], time.monotonic() + seconds
    with ExitStack() as stack:
        pair = [
            stack.enter_context(SubjectProcess(make_spec(path.stem, path, threads), stops=scheme.stops))
            for path in paths
        ]
        is_open = False
        while time.monotonic() < end_s:
            for process in pair if scheme.anew or not is_open else ():
                process.open()
                process.prepare(feeds)
                process.warm_up(_WARM_UP_S)
            is_open = True
            taken: tuple[list[int], list[int]] = ([], [])
            for _ in range(scheme.turns):
                for side in draw.sample((0, 1), 2):
                    taken[side].extend(
                        pair[side].run_block(scheme.runs, discard=scheme.discard, pause_s=scheme.pause_s)
                    )
            ratios.append(np.log(np.median(taken[0]) / np.median(taken[1])))
    return np.array(ratios, np.float64)


def describe(trials: Sequence[NDArray[np.float64]], seconds: float) -> list[str]:
    """Return the cells of a row. Scatter is robust: 0.74 times the distance between the quartiles."""
    rounds = np.concatenate(trials)
    low, high = np.percentile(rounds, [25, 75])
    scatter = 0.7413 * (high - low)
    between = np.std([np.median(trial) for trial in trials], ddof=1)
    # A median of n values scatters 1.25 times as much as their mean.
    explained = 1.2533 * scatter / np.sqrt(len(rounds) / len(trials))
    return [
        f"{10 * len(rounds) / len(trials) / seconds:.0f}",
        f"{scatter:.1%}",
        f"{np.mean(np.abs(rounds) > _FAR):.0%}",
        f"{between:.2%}",
        f"{explained:.2%}",
    ]


if __name__ == "__main__":
    sys.exit(main())
