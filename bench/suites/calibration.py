"""What calibrating MiniLM costs: ``python -m bench.suites.calibration``, or ``make bench SUITE=calibration``.

In: real weights and texts (:mod:`bench.assets`). Out: a Markdown table on stdout and the figures as JSON in
``bench/results``: seconds and peak memory with 64 and 4,096 texts, beside ONNX Runtime's percentile calibrator with 64.
Every figure is that of a process of its own, loading included.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import assets
from bench.machine import describe_machine, probe_gemm_peak
from bench.peers import stepdown_cli
from bench.table import render_markdown
from runtimes.atomic import write_text

FEW, MANY = 64, 4096
LARGEST_MEMORY_RATIO = 1.1
#: Words by which one text is moved on to make the next: the corpus has 300, and every text must differ.
_STRIDE = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times the programs take turns; the fastest counts (3)")
    parser.add_argument("--many", type=int, default=MANY, help=f"texts of the large run ({MANY})")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/calibration.json"))
    options = parser.parse_args(arguments)
    checkpoint, work = assets.minilm(), assets.cache_directory() / "bench-calibration"
    work.mkdir(parents=True, exist_ok=True)
    model = stepdown_cli.trace_float(checkpoint, work / "float")
    texts = work / "texts.txt"
    lines = assets.lee().background.read_text(encoding="utf-8").splitlines()
    write_text(texts, "".join(f"{text}\n" for text in stretch(lines, options.many)))
    statistics = work / "statistics"
    peer = [sys.executable, "-m", "bench.peers.onnxruntime_tools", str(model), str(checkpoint / "tokenizer.json")]
    gemm = [probe_gemm_peak()]
    rounds: list[dict[str, stepdown_cli.Cost]] = []
    for _ in range(options.rounds):
        few = stepdown_cli.calibrate(model, texts, FEW, statistics)
        theirs = stepdown_cli.run_measured([*peer, str(texts), str(FEW), "percentile"])
        rounds.append({f"stepdown, {FEW} texts": few, f"onnxruntime percentile, {FEW} texts": theirs})
    ours, peers = rounds[0]
    costs = {key: min((each[key] for each in rounds), key=lambda cost: cost.seconds) for key in (ours, peers)}
    costs[f"stepdown, {options.many} texts"] = many = stepdown_cli.calibrate(model, texts, options.many, statistics)
    gemm.append(probe_gemm_peak())
    rows = [[key, f"{cost.seconds:.1f}", f"{cost.peak_bytes / 1e6:.0f}"] for key, cost in costs.items()]
    sys.stdout.write(render_markdown(["calibrating MiniLM", "s", "peak MB"], rows) + "\n")
    growth = many.peak_bytes / costs[ours].peak_bytes
    goals = {
        f"time of {FEW} texts over the percentile calibrator's": (costs[ours].seconds / costs[peers].seconds, 1.0),
        f"peak memory of {options.many} texts over that of {FEW}": (growth, LARGEST_MEMORY_RATIO),
    }
    for goal, (ratio, bound) in goals.items():
        sys.stdout.write(f"{'met' if ratio <= bound else 'MISSED'}: {goal}: {ratio:.2f} (at most {bound})\n")
    document = {
        "machine": describe_machine(),
        "gemm_gflops": gemm,
        "rounds": [{key: asdict(cost) for key, cost in each.items()} for each in rounds],
        "costs": {key: asdict(cost) for key, cost in costs.items()},
        "goals": {goal: {"ratio": ratio, "bound": bound} for goal, (ratio, bound) in goals.items()},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return int(any(ratio > bound for ratio, bound in goals.values()))


def stretch(lines: Sequence[str], count: int) -> Iterator[str]:
    """Yield ``count`` different texts: the lines, then the lines turned by some words, and so on."""
    for number in range(count):
        words = lines[number % len(lines)].split()
        turn = number // len(lines) * _STRIDE % len(words)
        yield " ".join([*words[turn:], *words[:turn]])


if __name__ == "__main__":
    sys.exit(main())
