"""The same ONNX model, slower by a wanted share: extra work inside the graph, with the same answer.

In: an ONNX file with LayerNormalization nodes. Out: another, with small matrix products between them.
:func:`tune_work` finds how many make a wanted slowdown here. Must not import: exporter, calibration, a runtime.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtimes.atomic import write_bytes
from runtimes.errors import Inconclusive, UnsupportedModel, UsageError

# Columns of one unit: a vector register of 16 floats, below which a product becomes no cheaper.
COLUMNS = 16
# Times a mean of about 1, this vanishes beside any float32 bias, and is no subnormal number.
TINY = 1e-30

# Time of head over time of base, measured interleaved.
MeasureSlowdown = Callable[[Path, Path], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedWork:
    """``units`` of extra work made the model slower by ``share`` (0.05 is 5 %) when it was last measured."""

    units: int
    share: float


def add_work(model: Path, out: Path, units: int) -> None:
    """Write ``model`` to ``out`` with ``units`` pieces of extra work, spread evenly over its depth.

    A piece multiplies a normalised hidden state ``[..., hidden]`` by a constant ``[hidden, 16]``. All pieces of a place
    are one product; its mean, times 1e-30, is added to the bias of the next normalisation. So the work is needed for
    the answer and lies on its way, nothing else in the graph changes (no fusion is gained or lost), and the sum in
    float32 is what it was. The constant is shared by the places: the file grows by about 24 KiB times pieces per place.

    Raises:
        UsageError: ``units`` is not positive.
        UnsupportedModel: there are not two normalisations with constant weights of one width, and a bias.
        OutputError: ``out`` cannot be written.
    """
    if units < 1:
        raise UsageError(f"{units} units of extra work", cure="give 1 or more")
    proto = onnx.load(model)
    sites, width = _find_sites(proto.graph, model)
    chosen = Counter(sites[number * len(sites) // units] for number in range(units))
    nodes: list[onnx.NodeProto] = []
    bias_addition: str | None = None
    for number, node in enumerate(proto.graph.node):
        if bias_addition is not None and node.op_type == "LayerNormalization":
            bias = f"{node.output[0]}_extra_bias"
            nodes.append(helper.make_node("Add", [node.input[2], bias_addition], [bias], f"{node.name}_extra_bias"))
            node.input[2], bias_addition = bias, None
        nodes.append(node)
        if number in chosen:
            bias_addition = f"{node.output[0]}_extra"
            nodes.extend(_make_work(node, chosen[number], bias_addition))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(_make_constants(width, set(chosen.values())))
    write_bytes(out, proto.SerializeToString())


def tune_work(
    model: Path,
    out: Path,
    share: float,
    measure: MeasureSlowdown,
    *,
    tolerance: float = 0.003,
    first_units: int = 40,
    attempts: int = 8,
) -> TunedWork:
    """Write ``model`` to ``out`` with as much extra work as makes it slower by ``share``, as ``measure`` finds it.

    Each attempt scales the work in proportion to what the last one found and forgets the others, so that a disturbed
    measurement costs an attempt and no more. A share met within the tolerance may owe it to luck: to report it, measure
    again and for longer.

    Args:
        model: The model to slow down.
        out: The slower model.
        share: 0.05 asks for 5 % more time.
        measure: Given ``model`` and ``out``, returns the time of ``out`` over that of ``model``.
        tolerance: How far off the share may be.
        first_units: Where to begin.
        attempts: How often to measure at most.

    Raises:
        UsageError: the share is not positive.
        Inconclusive: no amount that was tried came within the tolerance; ``out`` then holds the closest.
        UnsupportedModel, OutputError: see :func:`add_work`.
    """
    if share <= 0:
        raise UsageError(f"a slowdown of {share}", cure="give a share above 0, such as 0.05")
    tried: list[TunedWork] = []
    units = first_units
    for _ in range(attempts):
        add_work(model, out, units)
        tried.append(TunedWork(units=units, share=measure(model, out) - 1))
        if abs(tried[-1].share - share) <= tolerance:
            return tried[-1]
        units = _propose_units(units, tried[-1].share, share)
    closest = min(tried, key=lambda one: abs(one.share - share))
    add_work(model, out, closest.units)
    raise Inconclusive(
        f"{closest.units} units make it {closest.share:.1%} slower, not {share:.1%}",
        where=str(out),
        cure="measure each amount for longer, or allow a larger tolerance",
    )


def _propose_units(units: int, found: float, share: float) -> int:
    """Return the units in proportion, at most twice and at least half as many: one measurement may be far off."""
    factor = share / found if found > 0 else math.inf
    return max(1, round(units * min(2.0, max(0.5, factor))))


def _find_sites(graph: onnx.GraphProto, path: Path) -> tuple[list[int], int]:
    """Return the places of the normalisations that another one follows, and their width."""
    widths = {
        tensor.name: tensor.dims[0]
        for tensor in graph.initializer
        if len(tensor.dims) == 1 and tensor.data_type == TensorProto.FLOAT
    }
    norms = {
        number: widths.get(node.input[1])
        for number, node in enumerate(graph.node)
        if node.op_type == "LayerNormalization" and len(node.input) == 3
    }
    width = next(iter(norms.values()), None)
    if len(norms) < 2 or set(norms.values()) != {width} or width is None:
        raise UnsupportedModel(
            "extra work goes between LayerNormalization nodes of one width with a bias, and there are not two",
            where=str(path),
            cure="give an exported Transformer encoder",
        )
    return list(norms)[:-1], width


def _make_work(node: onnx.NodeProto, pieces: int, result: str) -> list[onnx.NodeProto]:
    product, mean = f"{node.output[0]}_extra_product", f"{node.output[0]}_extra_mean"
    return [
        helper.make_node("MatMul", [node.output[0], f"extra_weight_{pieces}"], [product], f"{node.name}_extra_product"),
        # Without axes it takes them all, in every operator set.
        helper.make_node("ReduceMean", [product], [mean], f"{node.name}_extra_mean", keepdims=0),
        helper.make_node("Mul", [mean, "extra_tiny"], [result], f"{node.name}_extra_scale"),
    ]


def _make_constants(width: int, pieces: set[int]) -> list[onnx.TensorProto]:
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            draw.standard_normal((width, COLUMNS * count)).astype(np.float32), f"extra_weight_{count}"
        )
        for count in sorted(pieces)
    ]
    return [*weights, numpy_helper.from_array(np.array(TINY, np.float32), "extra_tiny")]
