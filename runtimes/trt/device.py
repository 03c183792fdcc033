"""The GPU as TensorRT's Python needs it: its generation, memory, a stream, and a recorded run.

In: nothing. Out: :class:`Device`. Through NVIDIA's own binding of the driver (``cuda.bindings.driver``), which comes
with no compute library and imports without a driver. The one module that knows it. Must not import torch or TensorRT.

Source: CUDA Driver API reference, 13.x (cuCtxSetCurrent, cuMemAlloc, cuStreamBeginCapture, cuGraphLaunch).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import MissingDependency, UsageError

# A handle of the driver's binding.
Handle: TypeAlias = Any

_INSTALL = (
    "pip install 'stepdown[tensorrt]' or 'stepdown[tensorrt-rtx]', on a device without PyTorch "
    "'stepdown[device-tensorrt]' or 'stepdown[device-tensorrt-rtx]'"
)
_CURES = {"CUDA_ERROR_OUT_OF_MEMORY": "free memory of the GPU, feed a smaller batch, or build a smaller --profile"}


def why_no_gpu() -> str | None:
    """Return None where an NVIDIA GPU can be used, else why not."""
    try:
        read_compute_capability()
    except MissingDependency as error:
        return str(error)
    return None


@cache
def read_compute_capability() -> int:
    """Return the compute capability of the first GPU, ``89`` for 8.9.

    Raises:
        MissingDependency: there is no binding, no driver or no GPU.
    """
    driver = _import_driver()
    device = _start(driver)
    attribute = driver.CUdevice_attribute
    major = _call(driver, driver.cuDeviceGetAttribute, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    minor = _call(driver, driver.cuDeviceGetAttribute, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    return int(major) * 10 + int(minor)


class Buffer:
    """Memory on the GPU, freed by :meth:`free`. ``address`` is what TensorRT takes."""

    def __init__(self, driver: ModuleType, size_bytes: int) -> None:
        self._driver, self.size_bytes = driver, max(1, size_bytes)
        self._pointer = _call(driver, driver.cuMemAlloc, self.size_bytes)

    @property
    def address(self) -> int:
        """The device address."""
        return int(self._pointer)

    def free(self) -> None:
        """Give the memory back; twice is fine."""
        if self._pointer is not None:
            pointer, self._pointer = self._pointer, None
            _call(self._driver, self._driver.cuMemFree, pointer)


class Device:
    """The first GPU of the machine, with one stream. Not thread-safe: one thread at a time.

    The primary context is used, which CUDA's runtime library (and so TensorRT and PyTorch) uses too.
    """

    def __init__(self) -> None:
        self._driver = driver = _import_driver()
        self._device = _start(driver)
        self._recorded: list[Handle] = []
        self._context = _call(driver, driver.cuDevicePrimaryCtxRetain, self._device)
        try:
            self.make_current()
            self._stream: Handle = _call(driver, driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        except BaseException:
            _call(driver, driver.cuDevicePrimaryCtxRelease, self._device)
            raise

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._open_stream())

    def make_current(self) -> None:
        """Let the calling thread use this GPU: CUDA knows a current context for each thread, and a new one has none."""
        _call(self._driver, self._driver.cuCtxSetCurrent, self._context)

    def read_free_bytes(self) -> int:
        """Return how much of the GPU's memory is free."""
        return int(_call(self._driver, self._driver.cuMemGetInfo))

    def allocate(self, size_bytes: int) -> Buffer:
        """Return memory on the GPU.

        Raises:
            UsageError: there is not so much.
        """
        return Buffer(self._driver, size_bytes)

    def copy_in(self, buffer: Buffer, array: NDArray[np.generic]) -> None:
        """Queue the copy of a contiguous array to the GPU; it must live until :meth:`wait`."""
        _call(
            self._driver, self._driver.cuMemcpyHtoDAsync, buffer.address, array.ctypes.data, array.nbytes, self._stream
        )

    def copy_out(self, array: NDArray[np.generic], buffer: Buffer) -> None:
        """Queue the copy of a buffer into a contiguous array, which is filled after :meth:`wait`."""
        _call(
            self._driver, self._driver.cuMemcpyDtoHAsync, array.ctypes.data, buffer.address, array.nbytes, self._stream
        )

    def wait(self) -> None:
        """Return when everything queued is done."""
        _call(self._driver, self._driver.cuStreamSynchronize, self._open_stream())

    def record(self, queue: Callable[[], object]) -> Callable[[], None]:
        """Record what ``queue`` puts on the stream and return the call that runs all of it at once (a CUDA graph).

        The graph holds the addresses it was recorded with and lives until :meth:`close`.
        """
        driver, stream = self._driver, self._open_stream()
        # Thread-local: what other threads do with CUDA meanwhile is neither recorded nor an error.
        _call(
            driver, driver.cuStreamBeginCapture, stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        )
        try:
            queue()
        except BaseException:
            # The stream must leave the recording; why nothing came of it is said by what is raised.
            _, graph = driver.cuStreamEndCapture(stream)
            if graph is not None:
                _call(driver, driver.cuGraphDestroy, graph)
            raise
        graph = _call(driver, driver.cuStreamEndCapture, stream)
        try:
            recorded = _call(driver, driver.cuGraphInstantiate, graph, 0)
        finally:
            _call(driver, driver.cuGraphDestroy, graph)
        self._recorded.append(recorded)
        return lambda: _call(driver, driver.cuGraphLaunch, recorded, stream)

    def close(self) -> None:
        """Release recorded runs, the stream and the context; twice is fine."""
        if self._stream is None:
            return
        self.make_current()
        while self._recorded:
            _call(self._driver, self._driver.cuGraphExecDestroy, self._recorded.pop())
        _call(self._driver, self._driver.cuStreamDestroy, self._stream)
        self._stream = None
        _call(self._driver, self._driver.cuDevicePrimaryCtxRelease, self._device)

    def _open_stream(self) -> Handle:
        if self._stream is None:
            raise UsageError("the session is closed", cure="open the artifact again")
        return self._stream


def _import_driver() -> ModuleType:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingDependency("the CUDA binding is not installed", where="cuda.bindings", cure=_INSTALL) from error
    module: ModuleType = driver
    return module


def _start(driver: ModuleType) -> Handle:
    """Start CUDA and return its first device."""
    try:
        _call(driver, driver.cuInit, 0)
        return _call(driver, driver.cuDeviceGet, 0)
    except (RuntimeError, UsageError) as error:  # RuntimeError: the binding finds no libcuda
        raise MissingDependency(
            f"no NVIDIA GPU can be used: {error}",
            where="cuda driver",
            cure="plans run on a machine with an NVIDIA GPU and its driver; here they can only be built",
        ) from error


def _call(driver: ModuleType, function: Callable[..., tuple[Any, ...]], *arguments: Handle) -> Handle:
    """Call the driver: every function returns (code, values...); the first value comes back, or None."""
    code, *values = function(*arguments)
    if code != driver.CUresult.CUDA_SUCCESS:
        cure = _CURES.get(code.name, "see `stepdown doctor`")
        raise UsageError(f"CUDA refuses {function.__name__}: {code.name}", where="GPU", cure=cure)
    return values[0] if values else None
