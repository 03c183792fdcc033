"""What a changed model will take once it is exported to INT8: bytes, counted; time, from a measured table.

In: the anatomy of a model, its measured time, and the anatomies of changed copies. Out: the costs of each copy, its
time in yardsticks, without tracing it. That is the time of its linears, each shape timed once by itself, and of the
rest, which shrinks with what it belongs to. Must not import torch at module level.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.planning.yardstick import Yardstick
from exporter.sparsity.costs import CostTable, LinearCase
from exporter.sparsity.kept_gains import open_kept_gains
from exporter.weights.zeros import describe_sparsity
from runtimes.isa import detect, saturates_u8s8
from runtimes.sparse.library import why_unavailable

if TYPE_CHECKING:
    from compression.planning.anatomy import Anatomy
    from compression.planning.proposal import Costs

# What is no product of a linear: norms and additions go with the layers, Gelu with the neurons, softmax, transpositions
# and attention's products with the heads. Of MiniLM at 8x128 they were 9, 4 and 9 % of the whole.
_REST_OF_LAYERS, _REST_OF_NEURONS, _REST_OF_HEADS = 0.4, 0.2, 0.4
# Where the linears alone seem to take as long as the model, some of it is something else all the same.
_LEAST_REST = 0.1
# An INT8 weight has a scale for each output, and a table one for each row.
_SCALE_BYTES, _FLOAT_BYTES = 4, 4


class Timer(Protocol):
    """Tells how long the linears of an INT8 model take."""

    def time_linear(self, weight: NDArray[np.float32]) -> float:
        """Return the time of a weight [outputs, inputs] in yardsticks, in its fastest form."""
        ...


class LayerTimer:
    """Times linears on this machine, each shape (and density) once. Writes its models below ``folder``."""

    def __init__(self, yardstick: Yardstick, folder: Path) -> None:
        self._yardstick = yardstick
        self._dense: dict[tuple[int, ...], float] = {}
        self._sparse = None
        if why_unavailable() is None:
            bits = 7 if saturates_u8s8(detect()) else 8
            self._sparse = CostTable(
                directory=folder,
                shapes=(yardstick.shape,),
                threads=yardstick.threads,
                weight_bits=bits,
                kept=open_kept_gains(threads=yardstick.threads, weight_bits=bits),
            )

    def time_linear(self, weight: NDArray[np.float32]) -> float:
        """Return the time of a weight; see :class:`Timer`."""
        if weight.shape not in self._dense:
            outputs, inputs = weight.shape
            self._dense[weight.shape] = self._yardstick.time_linear(inputs, outputs, quantised=True)
        return self._dense[weight.shape] / self._find_gain(weight)

    def _find_gain(self, weight: NDArray[np.float32]) -> float:
        form = describe_sparsity(weight != 0).best
        if self._sparse is None or form is None or form.expected_gain < 1:
            return 1.0
        axes = ("batch", "sequence", weight.shape[1])
        case = LinearCase(weight=np.ascontiguousarray(weight.T), bias=None, activation="none", axes=axes)
        return max(1.0, *self._sparse.find_gain(case, form, "int8").values())


class CostModel:
    """Predicts the costs of changed copies of one model."""

    def __init__(self, whole: Anatomy, *, overhead_bytes: int, time: float | None, timer: Timer | None) -> None:
        """Take a model as it is.

        Args:
            whole: Its anatomy.
            overhead_bytes: Of its file, what is no weight.
            time: Of the whole model in INT8, in yardsticks; None where nothing is timed.
            timer: Times linears; None where nothing is timed.
        """
        self._whole, self._overhead, self._timer = whole, overhead_bytes, timer
        self._rest = 0.0
        if time is not None:
            self._rest = max(time - self._time_linears(whole), _LEAST_REST * time)

    def predict(self, anatomy: Anatomy, *, rows_gone: int = 0) -> Costs:
        """Return the costs of a copy; ``rows_gone`` pieces have yet to leave its vocabulary."""
        from compression.planning.proposal import Costs

        size = self._overhead + count_bytes(anatomy) - rows_gone * (_find_width(anatomy) + _SCALE_BYTES)
        if self._timer is None:
            return Costs(size_bytes=size, time=None)
        return Costs(size_bytes=size, time=self._time_linears(anatomy) + self._rest * self._share_rest(anatomy))

    def _time_linears(self, anatomy: Anatomy) -> float:
        timer = self._timer
        return 0.0 if timer is None else sum(timer.time_linear(weight) for weight in anatomy.weights)

    def _share_rest(self, left: Anatomy) -> float:
        whole = self._whole
        layers = left.layers / whole.layers
        return (
            _REST_OF_LAYERS * layers
            + _REST_OF_NEURONS * _divide(left.neurons, whole.neurons, layers)
            + _REST_OF_HEADS * _divide(left.heads, whole.heads, layers)
        )


def count_bytes(anatomy: Anatomy) -> int:
    """Return what the weights take: matrices in INT8 with scales, sparse where that is smaller, vectors in float."""
    total = _FLOAT_BYTES * anatomy.vectors
    for weight in anatomy.weights:
        form = describe_sparsity(weight != 0).best
        dense = weight.size if form is None else min(weight.size, form.size_bytes(1))
        total += dense + _SCALE_BYTES * len(weight)
    return total + sum(rows * columns + _SCALE_BYTES * rows for rows, columns in anatomy.tables)


def _find_width(anatomy: Anatomy) -> int:
    """Return the columns of the table with the most rows: the word embeddings."""
    return max(anatomy.tables, default=(0, 0))[1]


def _divide(left: int | None, whole: int | None, otherwise: float) -> float:
    # Where units cannot be told apart (any more: their linears became factors) they go with the layers.
    return left / whole if left is not None and whole else otherwise
