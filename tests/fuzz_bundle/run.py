"""Fuzzes every reader of a bundle and counts: ``python -m tests.fuzz_bundle.run --executions 5000000``.

Executions are shared out over the targets and counted in ``build/fuzz_bundle/executions.json``; a run that was stopped
goes on where it was. Each target starts from ``tests/fuzz_bundle/corpus/TARGET``; what the fuzzer adds lies in
``build/fuzz_bundle/corpus``, what breaks a target in ``build/fuzz_bundle/broken`` (put it into the first, so that the
tests replay it). A crash, an input that takes over 20 s, more than 2 GB, or anything touched outside its room fails.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz_bundle.seeds import make_seeds
from tests.fuzz_bundle.targets import TARGETS

ROOT = Path(__file__).parents[2]
SEEDS = Path(__file__).parent / "corpus"
WORK = ROOT / "build" / "fuzz_bundle"
LEDGER = WORK / "executions.json"
# A disk in memory, where there is one: each execution of some targets writes a few files.
MEMORY = Path("/dev/shm")
# One process of libFuzzer ends after as many, so that little is lost when a run is stopped, and memory is given back.
ROUND = 50_000
LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-max_len=16384", "-print_final_stats=1", "-verbosity=0")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=5_000_000, help="in all, over all targets and runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after as long; the count is kept")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="one of these (repeatable; all)")
    parser.add_argument("--write-seeds", action="store_true", help="write the seed corpus anew, and stop")
    options = parser.parse_args()
    if options.write_seeds:
        write_seeds()
        return 0
    return fuzz(options.target or sorted(TARGETS), options.executions, time.monotonic() + options.seconds)


def write_seeds():
    for name, seeds in make_seeds().items():
        (SEEDS / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (SEEDS / name / f"seed-{number}").write_bytes(seed)


def fuzz(names, executions, deadline):
    """Run rounds over the targets until each has its share, or time is up."""
    share = -(-executions // len(names))
    counts = json.loads(LEDGER.read_text()) if LEDGER.is_file() else {}
    broken = []
    while True:
        left = [name for name in names if counts.get(name, 0) < share and name not in broken]
        if not left or time.monotonic() >= deadline:
            break
        name = min(left, key=lambda one: counts.get(one, 0))
        started = time.monotonic()
        done, status = run_round(name, min(ROUND, share - counts.get(name, 0)), counts.get(name, 0), deadline - started)
        counts[name] = counts.get(name, 0) + done
        LEDGER.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
        seconds = time.monotonic() - started
        print(f"{name:18} {counts[name]:>9,} of {share:,}  {done / seconds:,.0f}/s", flush=True)
        if status:
            broken.append(name)
    total = sum(counts.get(name, 0) for name in names)
    print(f"{total:,} executions over {len(names)} targets; broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def run_round(name, runs, seed, seconds):
    """Run one process of libFuzzer; return how many inputs it ran, and its exit status."""
    corpus = WORK / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    (WORK / "broken").mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz_bundle.fuzz", name, *LIMITS),
        *(f"-runs={runs}", f"-seed={seed + 1}", f"-artifact_prefix={WORK}/broken/{name}-"),
        *((f"-max_total_time={max(1, int(seconds))}",) if seconds != float("inf") else ()),
        *(f"-dict={Path(__file__).parent}/words.dict", str(corpus), str(SEEDS / name)),
    ]
    # libFuzzer leaves without a word to Python, which would have removed its folder.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        environment = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    log = WORK / f"{name}.log"
    log.write_text(done.stdout + done.stderr)
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode or found is None:
        print(f"{name} broke (status {done.returncode}): see {log} and {WORK}/broken", file=sys.stderr)
    return int(found[1]) if found else 0, done.returncode or found is None


if __name__ == "__main__":
    raise SystemExit(main())
