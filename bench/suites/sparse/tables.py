"""The sparse suite's figures as Markdown tables. In: what was measured. Out: text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.recordings.recording import OpTime
from bench.suites.goals import show_ratio
from bench.suites.sparse.goals import Models
from bench.suites.sparse.layers import CSR, DENSE, DENSE_INT8, DENSITIES, TORCH, LayerTime, find_break_even
from bench.suites.sparse.models import DENSE as DENSE_MODEL
from bench.suites.sparse.models import TITLES
from bench.suites.sparse.peaks import Peak, describe_peaks, name_share, pick_peaks
from bench.table import render_markdown
from bench.timing.compare import compare
from runtimes.sparse.storage import BLOCKS


def render_models(
    models: Models, sizes_bytes: Mapping[float, Mapping[str, int]], peaks: Sequence[Peak]
) -> Iterator[str]:
    """Yield a table for each number of threads: speed against ONNX Runtime FP32, with a 95 % bound."""
    for threads in dict.fromkeys(threads for found in models.values() for threads in found):
        header: list[str] = []
        rows = []
        for share, by_threads in models.items():
            shapes = by_threads[threads]
            header = ["pruned, runtime", "MB", *shapes]
            for key in next(iter(shapes.values())):
                size = sizes_bytes[share].get(key)
                speeds = [show_ratio(compare(found[DENSE_MODEL], found[key])) for found in shapes.values()]
                rows.append([f"{share:.0%}, {TITLES[key]}", f"{size / 1e6:.1f}" if size else "-", *speeds])
            times = [f"{found[DENSE_MODEL].median_ns() / 1e6:.2f} ms" for found in shapes.values()]
            rows.append([f"{share:.0%}, time of ONNX Runtime FP32", "", *times])
            probed = [pick_peaks(peaks, "models", threads, row=name_share(share), column=shape) for shape in shapes]
            rows.append([f"{share:.0%}, one core / dense product, GFLOP/s", "", *map(_show_peaks, probed)])
        yield f"Speed against ONNX Runtime FP32, {threads} threads:\n\n" + render_markdown(header, rows)


def render_layers(times: Sequence[LayerTime], threads: int, peaks: Sequence[Peak]) -> Iterator[str]:
    """Yield a table for each number of tokens, and one of where sparse begins to pay."""
    counts = list(dict.fromkeys(one.tokens for one in times))
    for tokens in counts:
        some = [one for one in times if one.tokens == tokens]
        peak = describe_peaks(pick_peaks(peaks, "layers", threads, column=str(tokens)))
        title = f"Layers, {tokens} tokens, {threads} threads, speed against ONNX Runtime FP32; {peak}:"
        yield f"{title}\n\n{_render_speeds(some)}"
    peak = describe_peaks(pick_peaks(peaks, "layers", threads))
    title = f"Sparsity from which a layer is no slower than ONNX Runtime FP32, {threads} threads, best and worst layer"
    yield f"{title}; {peak}:\n\n{_render_break_even(times, counts)}"


def render_profile(profile: Sequence[OpTime], peaks: Sequence[Peak]) -> str:
    """Return where a sparse model's time goes, by operator."""
    spent = Counter[str]()
    for one in profile:
        spent[one.op] += one.ns
    total = sum(spent.values())
    rows = [[op, f"{ns / 1e6:.2f}", f"{ns / total:.1%}"] for op, ns in spent.most_common()]
    peak = describe_peaks(pick_peaks(peaks, "profile", 2))
    title = f"Where the time goes, 90 % pruned at {profile[0].shape}, 2 threads; {peak}:"
    return f"{title}\n\n" + render_markdown(["operator", "ms", "share"], rows)


def _show_peaks(peaks: Sequence[Peak]) -> str:
    return ", ".join(f"{peak.core_gflops:.0f} / {peak.gemm_gflops:.0f}" for peak in peaks) or "-"


def _render_speeds(times: Sequence[LayerTime]) -> str:
    """Geometric mean over the layers, by pattern and density."""
    dense = {one.shape: one.median_ns for one in times if one.what == DENSE}
    found: dict[tuple[str, float], list[float]] = {}
    for one in times:
        found.setdefault((_name(one), one.density), []).append(dense[one.shape] / one.median_ns)
    rows = []
    for name in dict.fromkeys(_name(one) for one in times if one.what != DENSE):
        cells = [found.get((name, density)) or found.get((name, 1.0)) for density in DENSITIES]
        rows.append(
            [name, *(f"{math.exp(sum(map(math.log, cell)) / len(cell)):.2f}" if cell else "-" for cell in cells)]
        )
    return render_markdown(["density", *(f"{density:g}" for density in DENSITIES)], rows)


def _render_break_even(times: Sequence[LayerTime], counts: Sequence[int]) -> str:
    rows = []
    for what, base in (("float", DENSE), ("int8", DENSE), ("int8", DENSE_INT8)):
        for block in BLOCKS:
            cells = []
            for tokens in counts:
                by_shape: dict[tuple[int, int], list[LayerTime]] = {}
                for one in times:
                    if one.tokens == tokens:
                        by_shape.setdefault(one.shape, []).append(one)
                found = [find_break_even(some, what, block, base) for some in by_shape.values()]
                known = [one for one in found if one is not None]
                best = f"{min(known):.0%}" if known else "never"
                worst = f"{max(known):.0%}" if len(known) == len(found) else "never"
                cells.append(f"{best} / {worst}")
            beside = " against dense INT8" if base == DENSE_INT8 else ""
            rows.append([f"{what} {block[0]}x{block[1]}{beside}", *cells])
    return render_markdown(["layer", *(f"{tokens} tokens" for tokens in counts)], rows)


def _name(one: LayerTime) -> str:
    titles = {TORCH: "PyTorch dense", CSR: "PyTorch CSR (MKL)", DENSE_INT8: "ONNX Runtime dynamic INT8"}
    return titles.get(one.what, f"{one.what} {one.block[0]}x{one.block[1]}" if one.block else one.what)
