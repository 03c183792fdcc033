"""Runs a plan on the GPU: bound buffers, the profile that fits, and the run replayed as a CUDA graph.

In: an engine, its record and options. Out: :class:`TrtSession`. Must not import onnx or torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import DataError, UnsupportedModel, UsageError
from runtimes.feeds import check_feeds
from runtimes.protocol import Tensors
from runtimes.trt.context import make_context, records_by_itself
from runtimes.trt.device import Buffer, Device
from runtimes.trt.engine import Engine, inspect_engine
from runtimes.trt.inspector import LayerRow
from runtimes.trt.options import RunOptions
from runtimes.trt.profiles import Shape, choose_profile
from runtimes.trt.record import PlanRecord

Arrays = dict[str, NDArray[np.generic]]
_NOTHING: Mapping[str, str] = {}


class TrtSession:
    """An open plan. One execution context and one stream: not thread-safe, though any one thread may run it."""

    thread_safe = False

    def __init__(self, engine: Engine, record: PlanRecord, options: RunOptions) -> None:
        self.inputs, self.outputs = record.inputs, record.outputs
        self._record, self._options = record, options
        self._buffers: dict[str, Buffer] = {}
        self._shapes: Mapping[str, Shape] = {}
        # Counts what was bound: a call that was prepared for something else must not run any more.
        self._binding = 0
        self._profile = 0
        # Closing goes backwards: the context and the engine before the memory they use, the device last.
        with ExitStack() as cleanup:
            self._device = Device()
            cleanup.callback(self._device.close)
            cleanup.callback(self._free_buffers)
            self._engine: Engine | None = engine
            cleanup.callback(self._drop_engine)
            self._context = make_context(engine, self._device, options, cleanup)
            self._cleanup = cleanup.pop_all()

    def run(self, feeds: Tensors) -> Arrays:
        """Run once and return every output by name.

        Raises:
            DataError: an input is missing, unknown, of another dtype, or of a shape that no profile holds.
            UnsupportedModel: TensorRT fails to run the plan.
            UsageError: the session is closed, or the GPU refuses (its memory is full).
        """
        return self.run_kept(feeds, {})

    def run_kept(self, feeds: Tensors, carried: Mapping[str, str]) -> Arrays:
        """Run once, and leave on the GPU what the next run goes on from, such as the cache of a decoder.

        Args:
            feeds: The inputs; one of ``carried`` that is missing is what its output was in the run before, and is not
                copied: the two change places.
            carried: For each input that is carried over, the output that it continues.

        Returns:
            Every output by name but those of ``carried``.

        Raises:
            DataError, UnsupportedModel, UsageError: as :meth:`run`; UsageError too where nothing was run before.
        """
        resident = {name: output for name, output in carried.items() if name not in feeds}
        if resident and not self._shapes:
            raise UsageError("nothing was run that it could go on from", where=next(iter(resident)), cure="feed it")
        given = self._bind(feeds, resident, kept=frozenset(carried.values()))
        answers = self._make_answers(but=frozenset(carried.values()))
        self._copy_in(given)
        self._execute()
        self._copy_out(answers)
        self._device.wait()
        return answers

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Bind the feeds and return the bare call, which returns when the GPU has finished.

        With ``RunOptions.cuda_graph`` the run is recorded and replayed: launching single kernels costs more than small
        ones take. Inputs are copied in, and outputs out, in each call unless ``device_inputs``.

        The call returns the outputs, in the same arrays each time; with ``device_inputs`` they are not copied, and it
        returns None. A later :meth:`run` or :meth:`prepare` with other shapes binds anew, and the call then raises
        UsageError.
        """
        given = self._bind(feeds)
        answers, binding = self._make_answers(), self._binding
        self._copy_in(given)
        # Once outside of any recording: TensorRT then sets up what depends on the shapes.
        self._execute()
        self._device.wait()
        execute = self._device.record(self._execute) if self._can_record() else self._execute

        def call() -> object:
            self._require_bound(binding)
            self._copy_in(given)
            execute()
            self._copy_out(answers)
            self._device.wait()
            return answers

        def call_on_device() -> None:
            self._require_bound(binding)
            execute()
            self._device.wait()

        return call_on_device if self._options.device_inputs else call

    def list_layers(self) -> tuple[LayerRow, ...]:
        """Return what became of each layer, by TensorRT's engine inspector."""
        return inspect_engine(self._open_engine())

    def close(self) -> None:
        """Release the GPU's memory; twice is fine, running afterwards is a UsageError."""
        if self._engine is not None:
            self._device.make_current()
        self._cleanup.close()

    def _bind(
        self, feeds: Tensors, resident: Mapping[str, str] = _NOTHING, kept: frozenset[str] = frozenset()
    ) -> Arrays:
        """Check the feeds and bind their shapes, unless they are bound. Returns contiguous inputs.

        ``resident`` are inputs that lie on the GPU as the outputs they map to; ``kept`` are outputs that will, a little
        larger each time.
        """
        engine = self._open_engine()
        left = {name: self._read_shape(output) for name, output in resident.items()}
        types = {spec.name: spec.dtype for spec in self.inputs}
        check_feeds(self.inputs, {**feeds, **{name: _stand_in(left[name], types[name]) for name in left}})
        self._device.make_current()
        engine.log.clear()
        given = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        shapes = {**{name: array.shape for name, array in given.items()}, **left}
        if shapes != self._shapes or resident:
            profile = choose_profile(self._record.profiles, shapes)
            # From here on what was bound is no more, whatever comes of this.
            self._binding += 1
            self._shapes = {}
            for name, output in resident.items():
                self._buffers[name], self._buffers[output] = self._buffers[output], self._buffers[name]
            self._use_profile(engine, profile)
            self._bind_inputs(engine, shapes)
            self._bind_outputs(engine, kept)
            self._shapes = shapes
        return given

    def _bind_inputs(self, engine: Engine, shapes: Mapping[str, Shape]) -> None:
        for spec in self.inputs:
            if not self._context.set_input_shape(spec.name, shapes[spec.name]):
                reason = engine.log.first_error() or "it says nothing more"
                raise DataError(f"TensorRT refuses the shape: {reason}", where=spec.name)
            self._place(engine, spec.name, _count_bytes(shapes[spec.name], spec.dtype))

    def _bind_outputs(self, engine: Engine, kept: frozenset[str]) -> None:
        for spec in self.outputs:
            shape = self._read_shape(spec.name)
            if any(size < 0 for size in shape):
                raise UnsupportedModel(
                    "the output's size depends on values", where=spec.name, cure="export it without that output"
                )
            # Twice of what is kept, so that a cache that grows token by token moves only each time it doubles.
            self._place(engine, spec.name, _count_bytes(shape, spec.dtype), room=2 if spec.name in kept else 1)

    def _use_profile(self, engine: Engine, number: int) -> None:
        if number == self._profile:
            return
        try:
            self._context.set_optimization_profile_async(number, self._device.stream)
        except RuntimeError as error:  # so its binding says what its C++ says with false
            reason = engine.log.first_error() or str(error)
            message = f"TensorRT refuses profile {number}: {reason}"
            raise UnsupportedModel(message, where="plan", cure="build it again") from error
        self._device.wait()
        self._profile = number

    def _place(self, engine: Engine, name: str, size_bytes: int, room: int = 1) -> None:
        """Give a tensor a buffer that is large enough, a new one ``room`` times so; buffers only grow."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size_bytes < size_bytes:
            if buffer is not None:
                # Out of the books first: there may be no memory for the larger one.
                self._buffers.pop(name).free()
            self._buffers[name] = buffer = self._device.allocate(room * size_bytes)
        if not self._context.set_tensor_address(name, buffer.address):
            reason = engine.log.first_error() or "it has no such tensor"
            raise UnsupportedModel(f"TensorRT does not bind it: {reason}", where=name, cure="build the plan again")

    def _read_shape(self, name: str) -> Shape:
        return tuple(self._context.get_tensor_shape(name))

    def _make_answers(self, but: frozenset[str] = frozenset()) -> Arrays:
        specs = [spec for spec in self.outputs if spec.name not in but]
        return {spec.name: np.empty(self._read_shape(spec.name), spec.dtype) for spec in specs}

    def _copy_in(self, given: Arrays) -> None:
        for name, array in given.items():
            self._device.copy_in(self._buffers[name], array)

    def _copy_out(self, answers: Arrays) -> None:
        for name, array in answers.items():
            self._device.copy_out(array, self._buffers[name])

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            reason = self._open_engine().log.first_error() or "it says nothing more"
            raise UnsupportedModel(f"TensorRT failed to run the plan: {reason}", where="plan", cure="build it again")

    def _can_record(self) -> bool:
        """Whether this session records the run: TensorRT-RTX does so by itself, when its kernels are finished."""
        return self._options.cuda_graph and not records_by_itself(self._open_engine().library)

    def _require_bound(self, binding: int) -> None:
        self._open_engine()
        if binding != self._binding:
            raise UsageError("the session has run other shapes since", where="prepare", cure="prepare it again")
        # The call may come from another thread than the one that prepared it.
        self._device.make_current()

    def _drop_engine(self) -> None:
        """Let TensorRT free what it holds, the context before its engine."""
        self._context = None
        self._engine = None

    def _free_buffers(self) -> None:
        while self._buffers:
            self._buffers.popitem()[1].free()

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise UsageError("the session is closed", cure="open the artifact again")
        return self._engine


def _count_bytes(shape: Shape, dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _stand_in(shape: Shape, dtype: str) -> NDArray[np.generic]:
    """Return an array of that shape which takes no memory: what lies on the GPU is checked as what is fed."""
    return np.broadcast_to(np.zeros((), dtype), shape)
