"""Runs a plan on the GPU: bound buffers, the profile that fits, and the run recorded as a CUDA graph.

In: an engine, its record and options. Out: :class:`TrtSession`. Must not import onnx or torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtimes.atomic import write_bytes
from runtimes.errors import DataError, UnsupportedModel, UsageError
from runtimes.feeds import check_feeds
from runtimes.protocol import Tensors
from runtimes.trt.device import Buffer, Device
from runtimes.trt.inspector import LayerRow, read_layers
from runtimes.trt.library import Library
from runtimes.trt.messages import MessageLog, Native
from runtimes.trt.options import RunOptions
from runtimes.trt.profiles import Shape, choose_profile
from runtimes.trt.record import PlanRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine and everything that must live as long as it: its runtime, and what both say."""

    library: Library
    runtime: Native
    engine: Native
    log: MessageLog


class TrtSession:
    """An open plan. One execution context and one stream: not thread-safe."""

    thread_safe = False

    def __init__(self, engine: Engine, record: PlanRecord, options: RunOptions) -> None:
        self.inputs, self.outputs = record.inputs, record.outputs
        self._record, self._options = record, options
        self._engine: Engine | None = engine
        self._cleanup = ExitStack()
        self._device = Device()
        self._cleanup.callback(self._device.close)
        self._context = _make_context(engine, options, self._cleanup)
        self._buffers: dict[str, Buffer] = {}
        # Runs first: buffers go before the device that holds them.
        self._cleanup.callback(self._free_buffers)
        self._profile = 0

    def run(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Run once and return every output by name.

        Raises:
            DataError: an input is missing, unknown, of another dtype, or of a shape that no profile holds.
            UsageError: the session is closed.
        """
        given = self._bind(feeds)
        for name, array in given.items():
            self._device.copy_in(self._buffers[name], array)
        self._execute()
        answers = {spec.name: np.empty(self._shape(spec.name), spec.dtype) for spec in self.outputs}
        for name, array in answers.items():
            self._device.copy_out(array, self._buffers[name])
        self._device.wait()
        return dict(answers)

    def prepare(self, feeds: Tensors) -> Callable[[], object]:
        """Bind the feeds and return the bare call, which returns when the GPU has finished.

        With ``RunOptions.cuda_graph`` the run is recorded once and replayed: launching single kernels costs more than
        small ones take. Inputs are copied in, and outputs out, in each call unless ``device_inputs``.

        A later :meth:`run` or :meth:`prepare` with other shapes binds anew; the call must not be used after that.
        """
        given = self._bind(feeds)
        answers = {spec.name: np.empty(self._shape(spec.name), spec.dtype) for spec in self.outputs}
        for name, array in given.items():
            self._device.copy_in(self._buffers[name], array)
        # Once outside of any recording: TensorRT then sets up what depends on the shapes.
        self._execute()
        self._device.wait()
        execute = self._device.record(self._execute) if self._can_record() else self._execute

        def call() -> object:
            if not self._options.device_inputs:
                for name, array in given.items():
                    self._device.copy_in(self._buffers[name], array)
            execute()
            if not self._options.device_inputs:
                for name, array in answers.items():
                    self._device.copy_out(array, self._buffers[name])
            self._device.wait()
            return answers

        return call

    def list_layers(self) -> tuple[LayerRow, ...]:
        """Return what became of each layer, by TensorRT's engine inspector."""
        engine = self._open_engine()
        return inspect_engine(engine)

    def close(self) -> None:
        """Release the GPU's memory; twice is fine, running afterwards is a UsageError."""
        self._engine = None
        self._cleanup.close()

    def _bind(self, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
        """Check the feeds, choose the profile, set shapes and give every tensor memory. Returns contiguous inputs."""
        engine = self._open_engine()
        check_feeds(self.inputs, feeds)
        given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        self._use_profile(choose_profile(self._record.profiles, {name: array.shape for name, array in given.items()}))
        for name, array in given.items():
            if not self._context.set_input_shape(name, array.shape):
                raise DataError(f"TensorRT refuses the shape: {engine.log.first_error()}", where=name)
            self._place(name, array.nbytes)
        for spec in self.outputs:
            shape = self._shape(spec.name)
            if any(size < 0 for size in shape):
                raise UnsupportedModel(
                    "the output's size depends on values", where=spec.name, cure="export it without that output"
                )
            self._place(spec.name, int(np.prod(shape)) * np.dtype(spec.dtype).itemsize)
        return given

    def _use_profile(self, number: int) -> None:
        if number != self._profile:
            self._context.set_optimization_profile_async(number, self._device.stream)
            self._device.wait()
            self._profile = number

    def _place(self, name: str, size_bytes: int) -> None:
        """Give a tensor a buffer that is large enough; buffers only grow."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size_bytes < size_bytes:
            if buffer is not None:
                buffer.free()
            self._buffers[name] = buffer = self._device.allocate(size_bytes)
        self._context.set_tensor_address(name, buffer.address)

    def _shape(self, name: str) -> Shape:
        return tuple(self._context.get_tensor_shape(name))

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            reason = self._open_engine().log.first_error() or "it says nothing more"
            raise UnsupportedModel(f"TensorRT failed to run the plan: {reason}", where="plan", cure="build it again")

    def _can_record(self) -> bool:
        """Whether the run can be recorded: TensorRT-RTX must not while it still finishes kernels for these shapes."""
        if not self._options.cuda_graph:
            return False
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(self._device.stream))

    def _free_buffers(self) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise UsageError("the session is closed", cure="open the artifact again")
        return self._engine


def inspect_engine(engine: Engine) -> tuple[LayerRow, ...]:
    """Return the layers of an engine; see :func:`runtimes.trt.inspector.read_layers` for what it raises."""
    inspector = engine.engine.create_engine_inspector()
    return read_layers(inspector.get_engine_information(engine.library.module.LayerInformationFormat.JSON))


def _make_context(engine: Engine, options: RunOptions, cleanup: ExitStack) -> Native:
    if options.weights_bytes is not None:
        engine.engine.weight_streaming_budget_v2 = options.weights_bytes
    config = _make_runtime_config(engine, options, cleanup)
    context = engine.engine.create_execution_context(*(() if config is None else (config,)))
    if context is None:
        reason = engine.log.first_error() or "it says nothing more"
        raise UnsupportedModel(
            f"TensorRT makes no context for the plan: {reason}",
            where="plan",
            cure="free GPU memory, or build with --weight-streaming or a smaller --profile",
        )
    return context


def _make_runtime_config(engine: Engine, options: RunOptions, cleanup: ExitStack) -> Native:
    """Return how TensorRT-RTX finishes its kernels on the device; None for a library that has nothing to finish."""
    strategies = getattr(engine.library.module, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        if options.runtime_cache is not None:
            title = engine.library.title
            raise UsageError(f"{title} finishes no kernels on the device", where="runtime_cache", cure="leave it out")
        return None
    config = engine.engine.create_runtime_config()
    # Kernels for a shape are made before its first run. Lazily, they would come in the midst of a measurement.
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    if options.runtime_cache is not None:
        _keep_kernels(config, options.runtime_cache, cleanup)
    return config


def _keep_kernels(config: Native, path: Path, cleanup: ExitStack) -> None:
    """Take finished kernels from a file, and write them there on closing."""
    cache = config.create_runtime_cache()
    if path.is_file() and not cache.deserialize(path.read_bytes()):
        raise UsageError("the kernel cache is of another version or GPU", where=str(path), cure="remove it")
    config.set_runtime_cache(cache)
    cleanup.callback(lambda: write_bytes(path, bytes(cache.serialize())))
