"""The names and signatures of ``tensorrt`` 10 and 11 that building uses, and nothing else: a removed name fails.

Not a model of TensorRT. It parses and builds nothing: it shows which calls are made, in which order, with which flags.
It cannot show that a plan comes out, is right, or runs. Names are those of NvInfer.h 10.x and 11.1 and of the migration
pages (shared/reference/tensorrt.md, section 2); integers differ between the two on purpose, as theirs do.
"""

from enum import IntEnum
from types import ModuleType

_KEPT = (
    "DEBUG",
    "GPU_FALLBACK",
    "REFIT",
    "TF32",
    "SPARSE_WEIGHTS",
    "VERSION_COMPATIBLE",
    "STRIP_PLAN",
    "WEIGHT_STREAMING",
)
_ONLY_10 = ("FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")


class Strict:
    """An object with the attributes its class declares, and no others."""

    __slots__ = ()


class _Profile(Strict):
    __slots__ = ("shapes",)

    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        self.shapes[input] = (min, opt, max)


class _TimingCache(Strict):
    __slots__ = ("data",)

    def __init__(self, data):
        self.data = data

    def serialize(self):
        return self.data + b"timed;"


class _Config(Strict):
    __slots__ = (
        "builder_optimization_level",
        "flags_set",
        "hardware_compatibility_level",
        "pools",
        "profiles",
        "profiling_verbosity",
        "timings",
    )

    def __init__(self):
        self.flags_set, self.profiles, self.pools, self.timings = set(), [], {}, None

    def set_flag(self, flag):
        self.flags_set.add(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_memory_pool_limit(self, pool, pool_size):
        self.pools[pool] = pool_size

    def create_timing_cache(self, serialized_timing_cache):
        return _TimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.timings = cache
        return not cache.data.startswith(b"foreign")


def make_tensorrt(major, *, gpu=True, parses=True):
    """Return a module with the API of TensorRT ``major`` (10 or 11); what was built is in ``module.built``."""
    module = ModuleType("tensorrt")
    flags = (*_ONLY_10, *_KEPT) if major == 10 else _KEPT
    enums = {
        "BuilderFlag": flags,
        "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED") if major == 10 else ("STRONGLY_TYPED",),
        "ProfilingVerbosity": ("LAYER_NAMES_ONLY", "NONE", "DETAILED"),
        "MemoryPoolType": ("WORKSPACE", "TACTIC_SHARED_MEMORY"),
        "HardwareCompatibilityLevel": ("NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
        "LayerInformationFormat": ("ONELINE", "JSON"),
    }
    for name, members in enums.items():
        setattr(module, name, IntEnum(name, {member: number for number, member in enumerate(members)}))
    module.__version__ = {10: "10.13.0.35", 11: "11.1.0.106"}[major]
    module.built = []

    class ILogger:
        def __init__(self):
            pass

    class Builder(Strict):
        __slots__ = ("logger",)

        def __init__(self, logger):
            if not gpu:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = logger

        def create_network(self, flags=0):
            if major == 10 and not flags & (1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)):
                raise RuntimeError("a weakly typed network: precision flags would be needed")
            return {"model": None}

        def create_builder_config(self):
            return _Config()

        def create_optimization_profile(self):
            return _Profile()

        def build_serialized_network(self, network, config):
            module.built.append(config)
            return b"plan of " + network["model"]

    class OnnxParser(Strict):
        __slots__ = ("logger", "network")

        def __init__(self, network, logger):
            self.network, self.logger = network, logger

        @property
        def num_errors(self):
            return 0

        def parse_from_file(self, model):
            from pathlib import Path

            self.network["model"] = Path(model).read_bytes()
            return parses

    module.ILogger, module.Builder, module.OnnxParser, module.IBuilderConfig = ILogger, Builder, OnnxParser, _Config
    return module
