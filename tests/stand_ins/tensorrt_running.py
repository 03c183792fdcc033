# ruff: noqa: ARG002 - the signatures are theirs
"""The half of the API of ``tensorrt`` 10 and 11 and of ``tensorrt_rtx`` that runs plans: see tensorrt_api.py.

Running copies the input ``x`` (``input_ids`` of a decoder) to every output, over the memory of
:mod:`tests.stand_ins.cuda_driver`, and behind what was in a cache.
"""

import ctypes
import json
import math
from enum import IntEnum
from functools import partial
from pathlib import Path

# What a plan built for streaming could stream, and what any plan needs for what lies between its layers.
STREAMABLE_BYTES, ACTIVATION_BYTES = 1000, 100
# What is copied, and how many bytes a number of it has; a cache beside it holds the same.
_ITEM_BYTES = {"x": 4, "input_ids": 8}


class Strict:
    """An object with the attributes that its class declares, and no others."""

    __slots__ = ()


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ParserError(Strict):
    """One refusal, as a parser words it."""

    __slots__ = ("seen",)

    def __init__(self, reason):
        self.seen = reason

    def desc(self):
        return self.seen

    def node(self):
        return 0

    def node_name(self):
        return "first"

    def node_operator(self):
        return "Gemm"


class EngineInspector(Strict):
    __slots__ = ("seen_text",)

    def __init__(self, text):
        self.seen_text = text

    def get_engine_information(self, format):
        assert format.name == "JSON"
        return self.seen_text


class IRuntimeCache(Strict):
    __slots__ = ("seen_data",)

    def __init__(self):
        self.seen_data = b""

    def deserialize(self, blob):
        self.seen_data = bytes(blob)
        return not self.seen_data.startswith(b"foreign")

    def serialize(self):
        return self.seen_data + b"finished;"


class IRuntimeConfig(Strict):
    __slots__ = ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy", "seen_cache")

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self.seen_cache = cache
        return True


def _find_past(name):
    return name.replace("present.", "past_key_values.")


class IExecutionContext(Strict):
    """Copies one input to every output. ``seen_profiles`` are those that were switched to.

    The output ``present.N`` of a cache is the input ``past_key_values.N``, [1, heads, past, head_dim], with the copied
    input behind it.
    """

    __slots__ = ("_gpu", "_places", "_profiles", "_shapes", "seen_config", "seen_profiles")

    def __init__(self, gpu, profiles, config):
        self._gpu, self._profiles, self._shapes, self._places = gpu, profiles, {}, {}
        self.seen_config, self.seen_profiles = config, []

    def set_input_shape(self, name, shape):
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        copied = self._shapes[self._find_copied()]
        if name in self._shapes or _find_past(name) not in self._shapes:
            return self._shapes.get(name, copied)
        *outer, past, width = self._shapes[_find_past(name)]
        return (*outer, past + math.prod(copied) // width, width)

    def set_tensor_address(self, name, memory):
        self._places[name] = memory
        return memory in self._gpu.memory

    def set_optimization_profile_async(self, profile_index, stream_handle):
        # The binding raises where C++ says false (pyCore.cpp, context_set_optimization_profile_async).
        if not 0 <= profile_index < self._profiles:
            raise RuntimeError("Error in set optimization profile async.")
        self.seen_profiles.append(profile_index)
        # A profile knows no shapes: they must be set anew.
        self._shapes = {}
        return True

    def execute_async_v3(self, stream_handle):
        for name, target in self._places.items():
            if name not in self._shapes:
                sources = [_find_past(name), self._find_copied()]
                for source in [source for source in sources if source in self._shapes]:
                    size = math.prod(self._shapes[source]) * _ITEM_BYTES[self._find_copied()]
                    self._gpu.put(stream_handle, partial(ctypes.memmove, target, self._places[source], size))
                    target += size
        return True

    def seen_bytes(self, name):
        """Return the bytes of an output as they lie on the GPU."""
        size = math.prod(self.get_tensor_shape(name)) * _ITEM_BYTES[self._find_copied()]
        return ctypes.string_at(self._places[name], size)

    def _find_copied(self):
        return next(name for name in _ITEM_BYTES if name in self._shapes)


class ICudaEngine(Strict):
    __slots__ = ("_budget", "_gpu", "_layers", "_profiles", "seen_contexts", "seen_flags", "seen_weights")

    def __init__(self, gpu, layers, *, flags, profiles):
        self._gpu, self._layers, self._profiles = gpu, layers, profiles
        self.seen_flags, self.seen_contexts, self.seen_weights = flags, [], None
        self._budget = self.streamable_weights_size

    @property
    def streamable_weights_size(self):
        return STREAMABLE_BYTES if "WEIGHT_STREAMING" in self.seen_flags else 0

    @property
    def device_memory_size_v2(self):
        return ACTIVATION_BYTES

    @property
    def weight_streaming_budget_v2(self):
        """Without a word: all of them stay on the GPU, and nothing is streamed."""
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, size):
        self._budget = size if 0 <= size <= self.streamable_weights_size else self._budget

    def create_execution_context(self, runtime_config=None):
        self.seen_contexts.append(IExecutionContext(self._gpu, self._profiles, runtime_config))
        return self.seen_contexts[-1]

    def create_engine_inspector(self):
        return EngineInspector(json.dumps({"Layers": self._layers}))


class RtxEngine(ICudaEngine):
    """With what TensorRT-RTX finishes on the device."""

    __slots__ = ()

    def create_runtime_config(self):
        return IRuntimeConfig()


class Refitter(Strict):
    __slots__ = ("seen_engine", "seen_model")

    def __init__(self, engine, logger):
        self.seen_engine, self.seen_model = engine, None

    def refit_cuda_engine(self):
        self.seen_engine.seen_weights = self.seen_model
        return self.seen_model is not None


class OnnxParserRefitter(Strict):
    """Refuses a model that holds the word "other"."""

    __slots__ = ("seen_errors", "seen_refitter")

    def __init__(self, refitter, logger):
        self.seen_refitter, self.seen_errors = refitter, []

    @property
    def num_errors(self):
        return len(self.seen_errors)

    def get_error(self, index):
        return self.seen_errors[index]

    def refit_from_file(self, model):
        data = Path(model).read_bytes()
        if b"other" in data:
            self.seen_errors.append(ParserError("the weights have another shape"))
            return False
        self.seen_refitter.seen_model = data
        return True


def list_classes(*, is_rtx):
    """Return the classes of this half by their names in the package."""
    plain = (ParserError, EngineInspector, IExecutionContext, Refitter, OnnxParserRefitter)
    named = {one.__name__: one for one in plain}
    if is_rtx:
        return {**named, "ICudaEngine": RtxEngine, "IRuntimeCache": IRuntimeCache, "IRuntimeConfig": IRuntimeConfig}
    return {**named, "ICudaEngine": ICudaEngine}
