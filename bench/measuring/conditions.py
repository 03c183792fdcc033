"""How quiet the machine was while something was measured, and what to do if it was not.

In: counters before and after, the speed of a fixed matrix product, raw timings. Out: :class:`Conditions`.
Must not import a runtime.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.machine import gpu
from bench.machine.description import probe_gemm_peak
from bench.machine.gpu import Reading
from bench.machine.processor_time import ProcessorTime, read_processor_time
from bench.recordings.recording import Conditions, Timing
from runtimes.errors import MissingDependency

# From here on a sentence is said. A host that takes 2 % of the time does so in slices of milliseconds, which is what
# p99 then shows; another process at 5 % of all processors is more than the background of an idle system (0-2 %).
STEAL_SHARE = 0.02
BUSY_SHARE = 0.05
# Repeated probes of an idle shared machine agree within some 5 %; its phases differ by up to a factor of two.
PROBE_CHANGE = 0.15
# pyperf calls a benchmark unstable at a standard deviation of 10 % of the mean; the middle half of a normal
# distribution spans 1.35 of its standard deviations.
SPREAD = 0.135
# Between the first and the last third of the rounds, after what subjects have in common.
DRIFT = 0.10
_MIN_ROUNDS_OF_DRIFT = 6


@dataclass(slots=True)
class Watch:
    """Filled while the block of :func:`watch_machine` runs; complete when it ends."""

    before: ProcessorTime | None = None
    after: ProcessorTime | None = None
    probe_gflops: tuple[float, ...] = ()
    gpu: Sequence[Reading] = ()


@contextmanager
def watch_machine(
    threads: int | None = None,
    processors: Collection[int] = (),
    *,
    with_gpu: bool = False,
    probe: Callable[[int | None], float] = probe_gemm_peak,
) -> Iterator[Watch]:
    """Watch the machine while the block runs. Processes started in the block should end in it, to be told from others.

    Args:
        threads: Of the matrix product; None takes every core.
        processors: The ones that are measured on; empty is all that this process may use.
        with_gpu: Whether to read the GPU meanwhile; where its driver does not answer, nothing is noted.
        probe: How the speed of the machine is found; a missing runtime leaves it unknown.
    """
    watch = Watch()
    first = _probe(probe, threads)
    with ExitStack() as stack:
        if with_gpu and gpu.why_unavailable() is None:
            watch.gpu = stack.enter_context(gpu.watch_gpu())
        watch.before = read_processor_time(processors)
        yield watch
    watch.after = read_processor_time(processors)
    watch.probe_gflops = (*first, *_probe(probe, threads))


def describe_conditions(watch: Watch, timings: Sequence[Timing]) -> Conditions:
    """Put together what was seen, and say what speaks against trusting it."""
    passed = watch.after.since(watch.before) if watch.before is not None and watch.after is not None else None
    conditions = Conditions(
        probe_gflops=watch.probe_gflops,
        steal_share=passed.steal_share() if passed is not None else None,
        busy_share=passed.other_share() if passed is not None else None,
        gpu=_choose_readings(watch.gpu),
    )
    found = (
        *_judge_processor(conditions),
        *_judge_probe(watch.probe_gflops),
        *_judge_spread(timings),
        *_judge_drift(timings),
        *gpu.judge_readings(watch.gpu),
    )
    return replace(conditions, unstable=found)


def _choose_readings(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Return the first, the busiest and the last."""
    between = readings[1:-1]
    busiest = max(between, key=lambda one: one.get("busy_percent") or 0, default=None)
    return (*readings[:1], *([busiest] if busiest is not None else []), *readings[1:][-1:])


def _probe(probe: Callable[[int | None], float], threads: int | None) -> tuple[float, ...]:
    try:
        return (probe(threads),)
    except MissingDependency:
        return ()  # a machine that runs PyTorch alone has no ONNX Runtime to probe with


def _judge_processor(conditions: Conditions) -> Iterator[str]:
    if conditions.steal_share is not None and conditions.steal_share > STEAL_SHARE:
        yield (
            f"the host took away {conditions.steal_share:.0%} of the processor time: "
            "measure at another time, or on a machine of your own"
        )
    if conditions.busy_share is not None and conditions.busy_share > BUSY_SHARE:
        yield (
            f"other processes used {conditions.busy_share:.0%} of the processor time: "
            "stop them, or keep them off some processors and pass those as --affinity"
        )


def _judge_probe(gflops: Sequence[float]) -> Iterator[str]:
    if len(gflops) > 1 and max(gflops) > min(gflops) * (1 + PROBE_CHANGE):
        yield (
            f"the machine's own speed changed from {gflops[0]:.0f} to {gflops[-1]:.0f} GFLOP/s: ratios were measured "
            "interleaved and stand, absolute times do not; measure again before you quote them"
        )


def _judge_spread(timings: Sequence[Timing]) -> Iterator[str]:
    """Name the timing whose block medians scatter most, if they do by more than :data:`SPREAD`."""
    spreads = {(timing.label, timing.shape): _spread(_medians(timing)) for timing in timings if len(timing.ns) > 3}
    if not spreads:
        return
    (label, shape), widest = max(spreads.items(), key=lambda item: item[1])
    if widest > SPREAD:
        yield (
            f"block medians scatter: the middle half of those of {label} at {shape} spans {widest:.0%} of the median; "
            "give more --time-budget, fewer --threads than processors, or a quieter machine"
        )


def _judge_drift(timings: Sequence[Timing]) -> Iterator[str]:
    """Compare the first and the last third of the rounds by what all subjects and shapes have in common."""
    rounds = min((len(timing.ns) for timing in timings), default=0)
    if rounds < _MIN_ROUNDS_OF_DRIFT:
        return
    logs = np.array([np.log(_medians(timing)[:rounds]) for timing in timings])
    common = np.median(logs - np.median(logs, axis=1, keepdims=True), axis=0)
    third = rounds // 3
    change = float(np.exp(np.median(common[-third:]) - np.median(common[:third])) - 1)
    if abs(change) > DRIFT:
        direction = "slower" if change > 0 else "faster"
        yield (
            f"everything became {abs(change):.0%} {direction} from the first to the last third of the run: ratios "
            "stand, absolute times belong to that moment; measure again when the machine has settled"
        )


def _medians(timing: Timing) -> NDArray[np.float64]:
    return np.array([statistics.median(block) for block in timing.ns], dtype=np.float64)


def _spread(medians: NDArray[np.float64]) -> float:
    low, middle, high = np.quantile(medians, [0.25, 0.5, 0.75])
    return float((high - low) / middle)
