"""What sparse layers gain where they stand: the whole model with them against the whole model without, by layer.

In: two artifacts of one float graph, dense and sparse, and the layers. Out: time in the dense one over time in the
sparse one, by layer and shape. Times are those of ONNX Runtime's profiler: of all that its fusions made of a layer,
from what the layer reads to what it gives. Writes only below ``directory``.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bench.timing.measure import MeasurePlan, measure_interleaved
from calibration.linears import find_linears
from calibration.lower.onnxruntime.sites import Site, find_sites
from exporter.candidates.timing import TimingPlan
from exporter.passes.activations import find_activation
from exporter.passes.sparse_norm import find_norm
from exporter.passes.untie_weights import open_for_lowering
from runtimes.artifact import Artifact
from runtimes.ort import OnnxRuntime, OrtOptions, OrtSession

_PLAN = MeasurePlan(blocks=6, block_seconds=0.1, min_runs=3, discard=1, warmup_seconds=0.1, time_budget_s=4)
Gains = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A linear with its bias, activation and the norm behind it, by the names of the values it reads and gives.

    Attributes:
        layer: The linear.
        read: What it reads, and the residual where the sparse operator does the norm: then both sides count it.
        given: Its output, normalised or not.
    """

    layer: str
    read: tuple[str, ...]
    given: str


def find_spans(graph: Path, layers: Sequence[str]) -> tuple[Span, ...]:
    """Return the spans of the named linears of a float graph, all of which ship sparse."""
    model = open_for_lowering(graph)
    chosen = [linear for linear in find_linears(model) if linear.node in layers]
    return tuple(_find_span(site) for site in find_sites(model, chosen))


def _find_span(site: Site) -> Span:
    output, _ = find_activation(site.output)
    norm = find_norm(output)
    if norm is None:
        return Span(layer=site.linear.node, read=(site.linear.activation,), given=output.name or "")
    read = (site.linear.activation, norm.residual.name or "")
    return Span(layer=site.linear.node, read=read, given=norm.output.name or "")


def measure_in_place(
    artifacts: Mapping[str, Artifact],
    spans: Sequence[Span],
    plan: TimingPlan,
    directory: Path,
    *,
    threads: int | None,
    advance: Callable[[int], None],
) -> Gains:
    """Profile both artifacts in turns at every shape.

    Args:
        artifacts: ``dense`` and ``sparse``.
        spans: The layers.
        plan: Shapes and inputs.
        directory: Where profiles and optimized graphs go.
        threads: Of ONNX Runtime.
        advance: Called once for each shape.

    Returns:
        Gains by layer and shape; a layer whose nodes cannot be told from others in either graph is left out.
    """
    directory.mkdir(parents=True)
    nodes = {
        kind: find_nodes(_optimise(artifact, directory / f"{kind}.onnx", threads), spans)
        for kind, artifact in artifacts.items()
    }
    gains: dict[str, dict[str, float]] = {}
    for name, feeds in plan.feed(artifacts["dense"].inputs):
        with ExitStack() as stack:
            sessions = {
                kind: stack.enter_context(closing(_open_profiled(artifact, directory / f"{kind}-{name}", threads)))
                for kind, artifact in artifacts.items()
            }
            measure_interleaved({kind: session.prepare(feeds) for kind, session in sessions.items()}, _PLAN)
            times = {kind: sum_times(nodes[kind], _read_profile(session)) for kind, session in sessions.items()}
        for layer in times["dense"].keys() & times["sparse"].keys():
            gains.setdefault(layer, {})[name] = times["dense"][layer] / times["sparse"][layer]
        advance(1)
    return gains


def find_nodes(graph: ir.Graph, spans: Sequence[Span]) -> dict[str, frozenset[str]]:
    """Return the names of the nodes of each span, those between what it reads and what it gives, by its layer.

    Args:
        graph: The graph that really runs.
        spans: The layers; one that is not in the graph any more is left out.
    """
    values = {value.name: value for node in graph for value in node.outputs}
    found = {
        span.layer: frozenset(node.name or "" for node in _find_between(span.read, values[span.given]))
        for span in spans
        if span.given in values
    }
    return {layer: nodes for layer, nodes in found.items() if nodes}


def sum_times(nodes: Mapping[str, frozenset[str]], times: Mapping[str, float]) -> dict[str, float]:
    """Return the time of each layer that took any, from its ``nodes`` and their ``times`` by name.

    A node that several layers need (one activation quantised for query, key and value) counts for each in parts.
    """
    shared = Counter(node for found in nodes.values() for node in found)
    sums = {layer: sum(times.get(node, 0.0) / shared[node] for node in found) for layer, found in nodes.items()}
    return {layer: total for layer, total in sums.items() if total > 0}


def _find_between(read: Collection[str], given: ir.Value) -> set[ir.Node]:
    """Return the nodes that compute ``given`` from the values called ``read``; none where they need another one."""
    found: set[ir.Node] = set()
    waiting = [given]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value.name in read or value.is_initializer() or node in found:
            continue
        if node is None:
            return set()
        found.add(node)
        waiting += [source for source in node.inputs if source is not None]
    return found


def _optimise(artifact: Artifact, path: Path, threads: int | None) -> ir.Graph:
    """Return the graph that ONNX Runtime makes of an artifact, which is the same at every shape, and large."""
    OnnxRuntime(OrtOptions(threads=threads, optimized=path)).open(artifact).close()
    return ir.load(path).graph


def _open_profiled(artifact: Artifact, prefix: Path, threads: int | None) -> OrtSession:
    return OnnxRuntime(OrtOptions(threads=threads, profile=prefix)).open(artifact)


def _read_profile(session: OrtSession) -> dict[str, float]:
    return read_nodes(json.loads(session.stop_profiling().read_text(encoding="utf-8")))


def read_nodes(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median time of each node in ONNX Runtime's profile, in microseconds: one disturbed run is no mean."""
    runs: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            runs[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    return {name: statistics.median(times) for name, times in runs.items()}
