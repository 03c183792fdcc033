"""One trial of the gate: a duel of two models, and beside it the sequential runs that other tools would judge.

In: what to compare and for how long. Out: a record with every raw nanosecond, on which any rule can be tried later.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.gating.duel import DuelPlan
from bench.gating.files import Comparability, judge_sides, make_side
from bench.gating.models import record_duel
from bench.gating.rule import GateLimits
from bench.measuring.rounds import ROUND_PLAN, measure_rounds, pair_timings
from bench.subjects.process import SubjectProcess
from bench.subjects.subject import SubjectSpec
from bench.timing.compare import Verdict
from bench.timing.samples import Samples
from runtimes.errors import CorruptArtifact

SHAPE = "1x128"
LIMITS = GateLimits()
# pytest-benchmark measures for a second by default (--benchmark-max-time), after a warm-up where asked for.
SEQUENTIAL_SECONDS = 1.0

# Turns on and off at random, on the last processor: a neighbour, not a constant tax.
_NEIGHBOUR = """
import os, random, sys, time
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
draw, parent = random.Random(int(sys.argv[1])), int(sys.argv[2])
while os.getppid() == parent:
    end = time.monotonic() + draw.uniform(0.2, 2.0)
    while time.monotonic() < end:
        pass
    time.sleep(draw.uniform(0.2, 2.0))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialKind:
    """What is tried: ``head`` against the base, within ``budget_s``, ``wanted`` times, with a ``neighbour`` or not.

    A slower model has more nodes and bytes, so that figures alone would tell: ``max_growth`` allows for them.
    """

    name: str
    head: str
    budget_s: float
    wanted: int
    neighbour: bool = False
    max_growth: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one trial gave; nanoseconds are raw.

    ``base_ns`` and ``head_ns`` are the duel's blocks, ``base_run_ns`` and ``head_run_ns`` all runs of one second each,
    one model after the other. ``exit_code`` is that of the whole gate, sizes and memory included.
    """

    kind: str
    number: int
    started: str
    budget_s: float
    seconds: float
    verdict: Verdict
    exit_code: int
    base_ns: tuple[tuple[int, ...], ...]
    head_ns: tuple[tuple[int, ...], ...]
    base_run_ns: tuple[int, ...]
    head_run_ns: tuple[int, ...]

    def pair(self) -> tuple[Samples, Samples]:
        """Return the duel's samples of base and head."""
        sides = (("base", self.base_ns), ("head", self.head_ns))
        base, head = (Samples(label=label, ns=ns, warmup_ns=(), machine={}) for label, ns in sides)
        return base, head


def make_spec(label: str, model: Path, threads: int) -> SubjectSpec:
    """Return a model as ONNX Runtime runs it on the CPU."""
    return SubjectSpec(label=label, runtime="onnxruntime", device="cpu", model=model, kind="onnx", threads=threads)


def run_trial(kind: TrialKind, number: int, base: SubjectSpec, head: SubjectSpec, feeds: Path) -> Trial:
    """Run one trial: the gate as `stepdown gate` runs it, then a second of base and a second of head."""
    plan = DuelPlan(time_budget_s=kind.budget_s, seed=number)
    limits = replace(LIMITS, max_growth=kind.max_growth)
    started, begin_s = datetime.now(UTC), time.monotonic()
    with start_neighbour(number) if kind.neighbour else ExitStack():
        recording = record_duel(base, head, lambda _inputs: {SHAPE: feeds}, limits, plan)
        seconds = time.monotonic() - begin_s
        runs = run_in_sequence(base, head, feeds)
    ours, theirs = (make_side(recording, spec.label, place="trial") for spec in (base, head))
    result = judge_sides(ours, theirs, limits, Comparability())
    blocks = {timing.label: timing.ns for timing in recording.timings}
    return Trial(
        kind=kind.name,
        number=number,
        started=started.isoformat(timespec="seconds"),
        budget_s=kind.budget_s,
        seconds=seconds,
        verdict=result.verdict,
        exit_code=result.exit_code,
        base_ns=blocks[base.label],
        head_ns=blocks[head.label],
        base_run_ns=runs[0],
        head_run_ns=runs[1],
    )


@contextmanager
def start_neighbour(seed: int) -> Iterator[None]:
    """Keep the last processor busy in bursts for as long as the block runs."""
    # It ends by itself when this process was killed: left over, it would disturb every later trial.
    process = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(seed), str(os.getpid())])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run_in_sequence(base: SubjectSpec, head: SubjectSpec, feeds: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Run base for a second, then head, each in a process of its own, as tools do that know one command at a time."""
    taken = []
    for spec in (base, head):
        with SubjectProcess(spec) as process:
            process.open()
            process.prepare(feeds)
            typical_ns = sorted(process.warm_up(0.3))[0]
            runs = max(5, round(SEQUENTIAL_SECONDS * 1e9 / typical_ns))
            taken.append(process.run_block(runs, discard=0, pause_s=0.0))
    return taken[0], taken[1]


def measure_pair(base: SubjectSpec, head: SubjectSpec, feeds: Path, seconds: float) -> tuple[Samples, Samples]:
    """Measure the two interleaved for so long, as the gate does, without judging."""
    timings = measure_rounds((base, head), {SHAPE: feeds}, replace(ROUND_PLAN, time_budget_s=seconds)).timings
    return pair_timings(timings, base.label, head.label)[SHAPE]


def append_trial(path: Path, trial: Trial) -> None:
    """Add one line to the record; what a kill left of a line is removed, so that nothing is glued to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.is_file() else b""
    with path.open("ab") as stream:
        stream.truncate(written.rfind(b"\n") + 1)
        stream.write(msgspec.json.encode(trial) + b"\n")


def read_trials(path: Path) -> list[Trial]:
    """Read the record; nothing where there is none.

    Raises:
        CorruptArtifact: a line other than the last cannot be read.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    trials = []
    for number, line in enumerate(lines, 1):
        try:
            trials.append(msgspec.json.decode(line, type=Trial))
        except msgspec.DecodeError as error:
            if number < len(lines):
                raise CorruptArtifact(f"a trial cannot be read: {error}", where=f"{path}:{number}") from error
    return trials


def choose_next(kinds: Mapping[str, TrialKind], done: Mapping[str, int], seed: int) -> TrialKind | None:
    """Return the kind that is furthest behind, so that all are spread over the same hours; ties are drawn."""
    behind = [kind for kind in kinds.values() if done.get(kind.name, 0) < kind.wanted]
    random.Random(seed).shuffle(behind)
    return min(behind, key=lambda kind: done.get(kind.name, 0) / kind.wanted, default=None)


def widen(kinds: Mapping[str, TrialKind], factor: float) -> dict[str, TrialKind]:
    """Return the kinds with ``factor`` times as many trials each."""
    return {name: replace(kind, wanted=max(1, round(kind.wanted * factor))) for name, kind in kinds.items()}
