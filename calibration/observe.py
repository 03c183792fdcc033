"""Runs a float model and hands out the values of chosen inner tensors, and how large others are, batch by batch.

In: a model file and tensor names. Out: an :class:`Observer`. Needs onnx and onnxruntime; must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.magnitudes import make_reductions, read_magnitudes
from runtimes.errors import CorruptArtifact, DataError, UnsupportedModel
from runtimes.generation.cache_spec import ask_for_all

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One batch: ``tensors`` in the order the graph computes them, ``magnitudes`` of what is measured alone."""

    tensors: Mapping[str, NDArray[Any]]
    magnitudes: Mapping[str, float]


class Observer:
    """A float model whose inner tensors can be read.

    The weights are neither parsed nor written again: serialised protocol buffers merge when joined, so a few bytes
    after the model's own declare the additional graph outputs, and weights beside the file are read from there. That
    also holds for models past 2 GB. Magnitudes are reduced inside the graph, so that no tensor has to be handed out
    for them. The memory arena is off, because it keeps the largest block of every shape it has seen: with it, memory
    would grow with the number of different lengths.
    """

    def __init__(
        self, model: Path, tensors: Sequence[str], *, measured: Sequence[str] = (), threads: int | None = None
    ) -> None:
        """Load ``model``.

        Args:
            model: An ONNX file.
            tensors: Names of float32 values in the main graph.
            measured: Names of float32 values in the main graph of which only the magnitude is wanted.
            threads: Threads inside an operator; None for one a core.

        Raises:
            CorruptArtifact: the model cannot be read.
            UnsupportedModel: a tensor is not in the graph, or ONNX Runtime cannot run the model.
        """
        import onnx
        import onnxruntime
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            proto = onnx.load(model, load_external_data=False)
        except (OSError, DecodeError) as error:
            raise CorruptArtifact(f"not an ONNX model: {error}", where=str(model), cure="export it again") from error
        self._where = str(model)
        inputs = {value.name for value in proto.graph.input}
        produced = {name: place for place, node in enumerate(proto.graph.node) for name in node.output}
        for name in (*tensors, *measured):
            if name not in produced and name not in inputs:
                cure = "calibrate the model that is quantised"
                raise UnsupportedModel(f"there is no tensor {name!r}", where=str(model), cure=cure)
        self.channel_axis = _find_channel_axes(proto, tensors)
        # In the order they are computed, so that the first one with a NaN is the one to blame.
        self.tensors = tuple(sorted(set(tensors), key=lambda name: (produced.get(name, -1), name)))
        self._inner = [name for name in self.tensors if name not in inputs]
        present = {value.name for value in proto.graph.output}
        added = [onnx.ValueInfoProto(name=name) for name in self._inner if name not in present]
        del proto
        self._measured = tuple(measured)
        nodes, reduced = make_reductions(self._measured)
        self._reduced = [value.name for value in reduced]
        suffix = onnx.ModelProto(graph=onnx.GraphProto(node=nodes, output=added + reduced)).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(model.resolve().parent))
        try:
            self._session = onnxruntime.InferenceSession(
                model.read_bytes() + suffix, options, providers=["CPUExecutionProvider"]
            )
        except _ort_errors() as error:
            cure = "check the model with onnxruntime"
            raise UnsupportedModel(f"ONNX Runtime cannot load it: {error}", where=str(model), cure=cure) from error
        self._asked = ask_for_all(value.name for value in self._session.get_overridable_initializers())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Observed:
        """Return the tensors and magnitudes of one batch.

        Raises:
            DataError: ONNX Runtime refuses the feeds.
        """
        wanted = [*self._inner, *self._reduced]
        try:
            values = self._session.run(wanted, {**self._asked, **feeds}) if wanted else []
        except _ort_errors() as error:
            cure = "check that the data fits the model's inputs (ids below the vocabulary, length below the positions)"
            raise DataError(f"the model cannot run a batch: {error}", where=self._where, cure=cure) from error
        found = dict(zip(wanted, values, strict=True))
        tensors = {name: np.asarray(found[name] if name in found else feeds[name]) for name in self.tensors}
        return Observed(tensors=tensors, magnitudes=read_magnitudes(self._measured, found))


def _find_channel_axes(proto: Any, tensors: Sequence[str]) -> dict[str, int]:  # noqa: ANN401  onnx is untyped here
    """Map a tensor to its channel axis: 1 for what a Conv reads (``[batch, channels, ...]``), else the last."""
    read_by_conv = {node.input[0] for node in proto.graph.node if node.op_type == "Conv"}
    return {name: 1 if name in read_by_conv else -1 for name in tensors}


def _ort_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )
