"""The execution context of an engine: how weights are streamed, kernels finished and runs replayed.

In: an engine and :class:`~runtimes.trt.options.RunOptions`. Out: a context of TensorRT. Must not import onnx or torch.

Source: NVIDIA, TensorRT-RTX documentation, "Working with RTX CUDA Graphs" and "Working with Runtime Cache"; NvInfer.h,
``ICudaEngine::setWeightStreamingBudgetV2``.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from runtimes.atomic import write_bytes
from runtimes.errors import UnsupportedModel, UsageError
from runtimes.trt.device import Device
from runtimes.trt.engine import Engine
from runtimes.trt.library import Library
from runtimes.trt.messages import Native
from runtimes.trt.options import RunOptions

# Of the memory that is free, an eighth is left for inputs, outputs, and weights on their way.
_KEPT_FREE = 8


def make_context(engine: Engine, device: Device, options: RunOptions, cleanup: ExitStack) -> Native:
    """Make a context; what must be done when it is closed is put on ``cleanup``.

    Raises:
        UsageError: an option that the library has not, or a kernel cache of another version or GPU.
        UnsupportedModel: there is no memory for the context, or the weights cannot be streamed.
    """
    # Zero unless it was built for streaming.
    if engine.engine.streamable_weights_size:
        _stream_weights(engine, device.read_free_bytes())
    config = _configure(engine, options, cleanup)
    context = engine.engine.create_execution_context(*(() if config is None else (config,)))
    if context is None:
        raise UnsupportedModel(
            f"TensorRT makes no context for the plan: {engine.log.first_error() or 'it says nothing more'}",
            where="plan",
            cure="free GPU memory, or build with --weight-streaming or a smaller --profile",
        )
    return context


def records_by_itself(library: Library) -> bool:
    """Whether the library turns runs into CUDA graphs, as TensorRT-RTX does: it knows when its kernels are finished."""
    return hasattr(library.module, "CudaGraphStrategy")


def _stream_weights(engine: Engine, free_bytes: int) -> None:
    """Keep on the GPU what fits beside the activations, and stream the rest: TensorRT by itself would stream nothing.

    ``get_weight_streaming_automatic_budget`` is no help: the binding of 11.1 cuts its answer to 32 bits.
    """
    native = engine.engine
    room = max(0, free_bytes - free_bytes // _KEPT_FREE - native.device_memory_size_v2)
    budget = min(native.streamable_weights_size, room)
    native.weight_streaming_budget_v2 = budget
    if native.weight_streaming_budget_v2 != budget:
        raise UnsupportedModel(
            f"TensorRT does not stream the weights: {engine.log.first_error() or 'it says nothing more'}",
            where="plan",
            cure="build it without --weight-streaming",
        )


def _configure(engine: Engine, options: RunOptions, cleanup: ExitStack) -> Native:
    """Return how TensorRT-RTX finishes its kernels on the device; None for a library that has nothing to finish."""
    trt = engine.library.module
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        if options.runtime_cache is not None:
            what = f"{engine.library.title} finishes no kernels on the device"
            raise UsageError(what, where="runtime_cache", cure="leave it out")
        return None
    config = engine.engine.create_runtime_config()
    # Kernels for a shape are made before its first run. Lazily, they would come in the midst of a measurement.
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    if options.cuda_graph and records_by_itself(engine.library):
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    if options.runtime_cache is not None:
        _keep_kernels(config, options.runtime_cache, cleanup)
    return config


def _keep_kernels(config: Native, path: Path, cleanup: ExitStack) -> None:
    """Take finished kernels from a file, and write them there on closing."""
    cache = config.create_runtime_cache()
    is_taken = not path.is_file() or cache.deserialize(path.read_bytes())
    if not is_taken or not config.set_runtime_cache(cache):
        raise UsageError("the kernel cache is of another version or GPU", where=str(path), cure="remove it")
    cleanup.callback(lambda: write_bytes(path, bytes(cache.serialize())))
