"""What calibrating MiniLM costs: ``python -m bench.suites.calibration``, or ``make bench SUITE=calibration``.

In: real weights and texts (:mod:`bench.assets`). Out: a Markdown table on stdout and the figures as JSON in
``bench/results``: seconds and peak memory with 64 and 4,096 texts, beside ONNX Runtime's percentile calibrator with 64.
Every figure is that of a process of its own, loading included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import assets
from bench.machine.description import describe_machine, probe_gemm_peak
from bench.packages import cache_directory
from bench.peers import stepdown_cli
from bench.table import render_markdown
from runtimes.atomic import write_text

FEW, MANY = 64, 4096
MEMORY_RATIO = 1.1
OURS, PEER, LARGE = f"stepdown, {FEW} texts", f"onnxruntime percentile, {FEW} texts", f"stepdown, {MANY} texts"
#: Words by which one text is moved on to make the next: the corpus has 300, and every text must differ.
_STRIDE = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        prog="bench.suites.calibration", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="times the programs take turns; the fastest counts (3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the GEMM probe (all cores)")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/calibration.json"))
    options = parser.parse_args(arguments)
    gemm = [probe_gemm_peak(options.threads)]
    rounds = list(_measure(options.rounds))
    gemm.append(probe_gemm_peak(options.threads))
    costs = {key: min((each[key] for each in rounds), key=lambda cost: cost.seconds) for key in (OURS, PEER, LARGE)}
    rows = [[key, f"{cost.seconds:.1f}", f"{cost.peak_bytes / 1e6:.0f}"] for key, cost in costs.items()]
    sys.stdout.write(render_markdown(["calibrating MiniLM", "s", "peak MB"], rows) + "\n")
    goals = {
        f"time of {FEW} texts over the percentile calibrator's": (costs[OURS].seconds / costs[PEER].seconds, 1.0),
        f"memory of {MANY} texts over that of {FEW}": (costs[LARGE].peak_bytes / costs[OURS].peak_bytes, MEMORY_RATIO),
    }
    for goal, (ratio, bound) in goals.items():
        sys.stdout.write(f"{'met' if ratio <= bound else 'MISSED'}: {goal}: {ratio:.2f} (at most {bound})\n")
    document = {
        "machine": describe_machine(),
        "gemm_gflops": gemm,
        "rounds": [{key: asdict(cost) for key, cost in each.items()} for each in rounds],
        "goals": {goal: {"ratio": ratio, "bound": bound} for goal, (ratio, bound) in goals.items()},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return int(any(ratio > bound for ratio, bound in goals.values()))


def _measure(count: int) -> Iterator[dict[str, stepdown_cli.Cost]]:
    """Yield the costs of each round; the large run, which takes minutes, is made in the first and kept."""
    checkpoint, work = assets.minilm(), cache_directory() / "bench-calibration"
    work.mkdir(parents=True, exist_ok=True)
    model = stepdown_cli.trace_float(checkpoint, work / "float")
    texts, statistics = work / "texts.txt", work / "statistics"
    lines = assets.lee().background.read_text(encoding="utf-8").splitlines()
    write_text(texts, "".join(f"{text}\n" for text in stretch(lines, MANY)))
    peer = [sys.executable, "-m", "bench.peers.onnxruntime_tools", str(model), str(checkpoint / "tokenizer.json")]
    large = stepdown_cli.calibrate(model, texts, MANY, statistics)
    for _ in range(count):
        yield {
            OURS: stepdown_cli.calibrate(model, texts, FEW, statistics),
            PEER: stepdown_cli.run_measured([*peer, str(texts), str(FEW), "percentile"]),
            LARGE: large,
        }


def stretch(lines: Sequence[str], count: int) -> Iterator[str]:
    """Yield ``count`` different texts: the lines, then the lines turned by some words, and so on."""
    for number in range(count):
        words = lines[number % len(lines)].split()
        turn = number // len(lines) * _STRIDE % len(words)
        yield " ".join([*words[turn:], *words[:turn]])


if __name__ == "__main__":
    sys.exit(main())
