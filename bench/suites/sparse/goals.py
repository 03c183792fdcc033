"""What the sparse suite has to show, and whether it did. In: measured figures. Out: a row for each goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench.suites.goals import Goal, decide, judge_ratio
from bench.suites.sparse.layers import DENSE as DENSE_LAYER
from bench.suites.sparse.layers import DENSE_INT8, LayerTime, find_break_even, share_of_peak
from bench.suites.sparse.models import DEEPSPARSE, DENSE, FLOAT
from bench.suites.sparse.peaks import Peak, name_pair, pick_peaks
from bench.timing.compare import compare
from bench.timing.samples import Samples

Models = Mapping[float, Mapping[int, Mapping[str, Mapping[str, Samples]]]]

# Times as fast as ONNX Runtime FP32 with its defaults, by shape and share pruned; two threads.
LEAST_SPEED = {"8x128": {0.8: 2.5, 0.9: 3.7, 0.95: 4.7}, "1x16": {0.8: 2.7, 0.9: 4.5, 0.95: 5.6}}
LEAST_AHEAD_OF_DEEPSPARSE = 1.1
# Sparsity from which a layer of 1,024 tokens is no slower than dense, by block.
LATEST_BREAK_EVEN = {(1, 1): 0.55, (4, 1): 0.30, (16, 1): 0.30}
LEAST_SHARE_OF_PEAK = 0.62
_PEAK_LAYER, _PEAK_TOKENS, _PEAK_DENSITY = (384, 1536), 1024, 0.2
_INT8_BLOCKS, LEAST_INT8_SPEED = ((16, 4), (1, 4)), 2.0


def judge_models(models: Models) -> Iterator[Goal]:
    """Judge the float artifact, by share, threads, shape and subject: the goals are for two threads."""
    for shape, wanted in LEAST_SPEED.items():
        for share, least in wanted.items():
            found = models.get(share, {}).get(2, {}).get(shape, {})
            if {DENSE, FLOAT} <= found.keys():
                name = f"{share:.0%} pruned at {shape}, against ONNX Runtime FP32"
                yield judge_ratio(name, compare(found[DENSE], found[FLOAT]), least)
    for share in (0.8, 0.9):
        found = models.get(share, {}).get(2, {}).get("8x128", {})
        if {DEEPSPARSE, FLOAT} <= found.keys():
            name = f"{share:.0%} pruned at 8x128, against DeepSparse"
            yield judge_ratio(name, compare(found[DEEPSPARSE], found[FLOAT]), LEAST_AHEAD_OF_DEEPSPARSE)


def judge_layers(times: Sequence[LayerTime], peaks: Sequence[Peak], threads: int) -> Iterator[Goal]:
    """Judge break-even, the share of one core's peak and INT8 beside dense at 1,024 tokens, beside float at any."""
    large = [one for one in times if one.tokens == _PEAK_TOKENS]
    by_shape = {shape: [one for one in large if one.shape == shape] for shape in {one.shape for one in large}}
    for block, latest in LATEST_BREAK_EVEN.items():
        found = [find_break_even(some, "float", block, DENSE_LAYER) for some in by_shape.values()]
        if found:
            worst = max(1.0 if one is None else one for one in found)
            name = f"break-even {block[0]}x{block[1]}, worst of {len(found)} layers, {threads} threads"
            yield _judge_most(name, worst, latest)
    for peak in pick_peaks(peaks, "layers", 1, row=name_pair(_PEAK_LAYER), column=str(_PEAK_TOKENS)):
        if threads == 1:
            yield from _judge_peak(by_shape.get(_PEAK_LAYER, []), peak.core_gflops)
    yield from _judge_int8_beside_dense(by_shape, threads)
    yield from _judge_int8_beside_float(times, threads)


def _judge_peak(times: Sequence[LayerTime], peak_gflops: float) -> Iterator[Goal]:
    for one in times:
        if (one.what, one.block, one.density) == ("float", (1, 1), _PEAK_DENSITY):
            share = share_of_peak(one, peak_gflops)
            name = f"share of the peak, {one.shape[0]}x{one.shape[1]} at 80 %, 1,024 tokens"
            yield Goal(
                name=name,
                wanted=f">= {LEAST_SHARE_OF_PEAK:.0%}",
                measured=f"{share:.1%}",
                verdict=decide(share >= LEAST_SHARE_OF_PEAK),
            )


def _judge_int8_beside_float(times: Sequence[LayerTime], threads: int) -> Iterator[Goal]:
    """Judge the same weights in both types, at every number of tokens."""
    found = {(one.what, one.shape, one.tokens, one.block, one.density): one.median_ns for one in times}
    slowest: dict[int, float] = {}
    for (what, shape, tokens, block, density), median_ns in found.items():
        if what == "int8":
            ratio = found["float", shape, tokens, block, density] / median_ns
            slowest[tokens] = min(ratio, slowest.get(tokens, ratio))
    for tokens, ratio in slowest.items():
        name = f"INT8, at least as fast as float, worst of all layers, {tokens} tokens, {threads} threads"
        yield _judge_least(name, ratio, 1.0)


def _judge_int8_beside_dense(by_shape: Mapping[tuple[int, int], Sequence[LayerTime]], threads: int) -> Iterator[Goal]:
    for block in _INT8_BLOCKS:
        ratios = []
        for some in by_shape.values():
            found = {(one.what, one.block, one.density): one.median_ns for one in some}
            if ("int8", block, _PEAK_DENSITY) in found:
                ratios.append(found[DENSE_INT8, None, 1.0] / found["int8", block, _PEAK_DENSITY])
        if ratios:
            name = f"INT8, against dense INT8, {block[0]}x{block[1]} at 80 %, worst of all layers, {threads} threads"
            yield _judge_least(name, min(ratios), LEAST_INT8_SPEED)


def _judge_least(name: str, ratio: float, least: float) -> Goal:
    return Goal(name=name, wanted=f">= {least:.2f}", measured=f"{ratio:.2f}", verdict=decide(ratio >= least))


def _judge_most(name: str, value: float, most: float) -> Goal:
    return Goal(name=name, wanted=f"<= {most:.0%}", measured=f"{value:.0%}", verdict=decide(value <= most))
