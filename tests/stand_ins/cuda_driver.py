# ruff: noqa: ARG002 - the signatures are theirs
"""The names and signatures of ``cuda.bindings.driver`` that running a plan uses, over memory of the host.

Not a model of a GPU: nothing is computed, and nothing here says how fast anything is. It is strict where CUDA is, so
that a mistake shows without a GPU: work put on a stream is done when the stream is waited for and not before, a thread
without a context is refused, so is a pointer that was given back, and what was never given back can be counted.
Names and parameters are those of cuda-bindings 13 (a test compares them where the package is installed).
"""

import ctypes
import itertools
import threading
from enum import IntEnum
from functools import wraps
from types import ModuleType


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400


class CUdevice_attribute(IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUstream_flags(IntEnum):
    CU_STREAM_DEFAULT = 0
    CU_STREAM_NON_BLOCKING = 1


class CUstreamCaptureMode(IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


ENUMS = (CUresult, CUdevice_attribute, CUstream_flags, CUstreamCaptureMode)
_DEVICE, _CONTEXT = 0, 0xC0
_OK = (CUresult.CUDA_SUCCESS,)


def _in_context(function):
    """Refuse a thread that has no context, as every CUDA call but those that start it does."""

    @wraps(function)
    def checked(self, *arguments):
        if not self.contexts or getattr(self.current, "context", None) != _CONTEXT:
            return (CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        return function(self, *arguments)

    return checked


class Gpu:
    """What lies on the device. Public methods that begin with ``cu`` are the driver's."""

    def __init__(self, sm=89, memory_bytes=1 << 20):
        self.sm, self.free_bytes = sm, memory_bytes
        self.memory, self.streams, self.recording, self.graphs, self.executables = {}, {}, {}, {}, {}
        self.contexts, self.launches, self.memory_bytes = 0, 0, memory_bytes
        self.current = threading.local()
        self._handles = itertools.count(0x1000)

    def put(self, stream, work):
        """Queue work on a stream, or record it where the stream records: for what stands in for kernels."""
        (self.recording if stream in self.recording else self.streams)[stream].append(work)

    def left(self):
        """Return how many of each kind were never given back."""
        held = {
            "memory": self.memory,
            "streams": self.streams,
            "recordings": self.recording,
            "graphs": self.graphs,
            "executables": self.executables,
            "contexts": range(self.contexts),
        }
        return {name: len(kind) for name, kind in held.items() if kind}

    def cuInit(self, Flags):
        return _OK

    def cuDeviceGet(self, ordinal):
        return (CUresult.CUDA_SUCCESS, _DEVICE) if ordinal == 0 else (CUresult.CUDA_ERROR_NO_DEVICE, None)

    def cuDeviceGetAttribute(self, attrib, dev):
        is_major = attrib == CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        return CUresult.CUDA_SUCCESS, self.sm // 10 if is_major else self.sm % 10

    def cuDevicePrimaryCtxRetain(self, dev):
        self.contexts += 1
        return CUresult.CUDA_SUCCESS, _CONTEXT

    def cuDevicePrimaryCtxRelease(self, dev):
        self.contexts -= 1
        return _OK

    def cuCtxSetCurrent(self, ctx):
        self.current.context = ctx
        return _OK

    @_in_context
    def cuStreamCreate(self, Flags):
        handle = next(self._handles)
        self.streams[handle] = []
        return CUresult.CUDA_SUCCESS, handle

    @_in_context
    def cuStreamDestroy(self, hStream):
        return self._drop(self.streams, hStream)

    @_in_context
    def cuStreamSynchronize(self, hStream):
        if hStream not in self.streams or hStream in self.recording:
            return (CUresult.CUDA_ERROR_INVALID_HANDLE,)
        work, self.streams[hStream] = self.streams[hStream], []
        for one in work:
            one()
        return _OK

    @_in_context
    def cuStreamBeginCapture(self, hStream, mode):
        assert isinstance(mode, CUstreamCaptureMode)
        self.recording[hStream] = []
        return _OK

    @_in_context
    def cuStreamEndCapture(self, hStream):
        handle = next(self._handles)
        self.graphs[handle] = self.recording.pop(hStream)
        return CUresult.CUDA_SUCCESS, handle

    @_in_context
    def cuGraphInstantiate(self, hGraph, flags):
        handle = next(self._handles)
        self.executables[handle] = tuple(self.graphs[hGraph])
        return CUresult.CUDA_SUCCESS, handle

    @_in_context
    def cuGraphDestroy(self, hGraph):
        return self._drop(self.graphs, hGraph)

    @_in_context
    def cuGraphLaunch(self, hGraphExec, hStream):
        if hGraphExec not in self.executables:
            return (CUresult.CUDA_ERROR_INVALID_HANDLE,)
        self.launches += 1
        for work in self.executables[hGraphExec]:
            self.put(hStream, work)
        return _OK

    @_in_context
    def cuGraphExecDestroy(self, hGraphExec):
        return self._drop(self.executables, hGraphExec)

    @_in_context
    def cuMemGetInfo(self):
        return CUresult.CUDA_SUCCESS, self.free_bytes, self.memory_bytes

    @_in_context
    def cuMemAlloc(self, bytesize):
        if bytesize > self.free_bytes:
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY, None
        self.free_bytes -= bytesize
        block = ctypes.create_string_buffer(bytesize)
        self.memory[ctypes.addressof(block)] = block
        return CUresult.CUDA_SUCCESS, ctypes.addressof(block)

    @_in_context
    def cuMemFree(self, dptr):
        self.free_bytes += len(self.memory.get(dptr, b""))
        return self._drop(self.memory, dptr)

    @_in_context
    def cuMemcpyHtoDAsync(self, dstDevice, srcHost, ByteCount, hStream):
        return self._copy(dstDevice, dstDevice, srcHost, ByteCount, hStream)

    @_in_context
    def cuMemcpyDtoHAsync(self, dstHost, srcDevice, ByteCount, hStream):
        return self._copy(srcDevice, dstHost, srcDevice, ByteCount, hStream)

    def _copy(self, device, target, source, count, stream):
        if len(self.memory.get(device, b"")) < count or stream not in self.streams:
            return (CUresult.CUDA_ERROR_INVALID_VALUE,)
        self.put(stream, lambda: ctypes.memmove(target, source, count))
        return _OK

    @staticmethod
    def _drop(kind, handle):
        return _OK if kind.pop(handle, None) is not None else (CUresult.CUDA_ERROR_INVALID_HANDLE,)


def make_driver(gpu):
    """Return the driver's module over ``gpu``."""
    module = ModuleType("cuda.bindings.driver")
    for enum in ENUMS:
        setattr(module, enum.__name__, enum)
    for name in list_functions():
        setattr(module, name, getattr(gpu, name))
    return module


def list_functions():
    """Return the names of the driver's functions that are here."""
    return [name for name in vars(Gpu) if name.startswith("cu")]
