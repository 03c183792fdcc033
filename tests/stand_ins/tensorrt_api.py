# ruff: noqa: ARG002 - the signatures are theirs
"""The names and signatures of ``tensorrt`` 10 and 11 and of ``tensorrt_rtx`` that are used here: a removed name fails.

Not a model of TensorRT: nothing is parsed, built or computed. A "plan" holds its ONNX file, and running one copies the
input ``x`` to every output. It shows which calls are made, in which order, with which names. It cannot show that a plan
comes out, is right, runs, or is fast.

Names, parameters and the numbers of flags: of 10.x from its Python binding (python/src/infer/pyCore.cpp), of 11 from
the migration pages. 11 and RTX are compared with tensorrt_rtx where that is installed, whose API is that of 11.
What begins with ``seen`` is ours: what was asked for.
"""

import json
from enum import IntEnum
from pathlib import Path
from types import ModuleType

from tests.stand_ins import tensorrt_running as running
from tests.stand_ins.tensorrt_running import Severity, Strict

VERSIONS = {"10": "10.13.0.35", "11": "11.1.0.106", "rtx": "1.7.1.116"}
_KEPT = {
    "DEBUG": 2, "GPU_FALLBACK": 3, "REFIT": 4, "DISABLE_TIMING_CACHE": 5, "TF32": 6, "SPARSE_WEIGHTS": 7,
    "SAFETY_SCOPE": 8, "DIRECT_IO": 11,
}  # fmt: skip
# From 12 on the numbers differ by one between 10 and 11: a stored number means another flag.
_MOVED = {
    "VERSION_COMPATIBLE": 12, "EXCLUDE_LEAN_RUNTIME": 13, "ERROR_ON_TIMING_CACHE_MISS": 15,
    "DISABLE_COMPILATION_CACHE": 17, "STRIP_PLAN": 18, "REFIT_IDENTICAL": 19, "WEIGHT_STREAMING": 20,
    "REFIT_INDIVIDUAL": 22, "STRICT_NANS": 23, "MONITOR_MEMORY": 24, "EDITABLE_TIMING_CACHE": 26,
    "DISTRIBUTIVE_INDEPENDENCE": 27,
}  # fmt: skip
_REMOVED = {
    "FP16": 0, "INT8": 1, "OBEY_PRECISION_CONSTRAINTS": 9, "PREFER_PRECISION_CONSTRAINTS": 10,
    "REJECT_EMPTY_ALGORITHMS": 12, "FP8": 15, "BF16": 17, "INT4": 22, "FP4": 26,
}  # fmt: skip
_PRECISIONS = {"FP16", "INT8", "FP8", "BF16", "INT4", "FP4"}
_PLAN = b"plan of "


class ILogger:
    Severity = Severity

    def __init__(self):
        pass


class IOptimizationProfile(Strict):
    __slots__ = ("seen_shapes",)

    def __init__(self):
        self.seen_shapes = {}

    def set_shape(self, input, min, opt, max):
        for name, shape in {"min": min, "opt": opt, "max": max}.items():
            if any(size >= 2**63 for size in shape):
                raise TypeError("set_shape(): incompatible function arguments")
            if any(not 0 <= size < 2**31 for size in shape):
                raise RuntimeError(f"Shape provided for {name} is inconsistent with other shapes.")
        self.seen_shapes[input] = (min, opt, max)


class ITimingCache(Strict):
    __slots__ = ("seen_data",)

    def __init__(self, data):
        self.seen_data = data

    def serialize(self):
        return self.seen_data + b"timed;"


class IBuilderConfig(Strict):
    __slots__ = (
        "builder_optimization_level",
        "hardware_compatibility_level",
        "profiling_verbosity",
        "seen_flags",
        "seen_pools",
        "seen_profiles",
        "seen_sms",
    )

    def __init__(self):
        self.seen_flags, self.seen_profiles, self.seen_pools, self.seen_sms = set(), [], {}, {}

    def set_flag(self, flag):
        self.seen_flags.add(flag.name)

    def add_optimization_profile(self, profile):
        self.seen_profiles.append(profile.seen_shapes)
        return len(self.seen_profiles) - 1

    def set_memory_pool_limit(self, pool, pool_size):
        self.seen_pools[pool.name] = pool_size


class EnterpriseConfig(IBuilderConfig):
    """With what only a builder that times kernels has use for."""

    __slots__ = ()

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        return not cache.seen_data.startswith(b"foreign")


class RtxConfig(IBuilderConfig):
    """With named GPUs. Its calls for timing caches force a query of a GPU, so they must not be made."""

    __slots__ = ("num_compute_capabilities",)

    def set_compute_capability(self, compute_capability, index):
        self.seen_sms[index] = compute_capability.name
        return index < self.num_compute_capabilities


def make_tensorrt(release, *, gpu=None, parses=True, layers=()):
    """Return a module with the API of one release.

    Args:
        release: "10", "11" or "rtx".
        gpu: The GPU of the machine; None for none, where only RTX has a builder.
        parses: Whether the parser takes what it is given.
        layers: What the engine inspector says of any plan.

    ``module.seen_configs`` are those that plans were built with, ``module.seen_engines`` those that were loaded.
    """
    module = ModuleType("tensorrt_rtx" if release == "rtx" else "tensorrt")
    module.__version__ = VERSIONS[release]
    module.seen_configs, module.seen_engines = [], []
    for name, members in _list_enums(release).items():
        setattr(module, name, IntEnum(name, members))
    module.IBuilderConfig = RtxConfig if release == "rtx" else EnterpriseConfig
    module.ILogger, module.IOptimizationProfile, module.ITimingCache = ILogger, IOptimizationProfile, ITimingCache
    for name, one in running.list_classes(is_rtx=release == "rtx").items():
        setattr(module, name, one)
    module.Builder, module.OnnxParser = _make_builder(module, release, gpu), _make_parser(parses)
    module.Runtime = _make_runtime(module, release, gpu, list(layers))
    return module


def _list_enums(release):
    flags = {**_KEPT, **_MOVED}
    if release == "10":
        flags = {**_KEPT, **_REMOVED, **{name: number + 1 for name, number in _MOVED.items()}}
    enums = {
        "BuilderFlag": flags,
        "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1},
        "ProfilingVerbosity": {"LAYER_NAMES_ONLY": 0, "NONE": 1, "DETAILED": 2},
        "MemoryPoolType": {"WORKSPACE": 0, "TACTIC_SHARED_MEMORY": 5},
        "HardwareCompatibilityLevel": {"NONE": 0, "AMPERE_PLUS": 1, "SAME_COMPUTE_CAPABILITY": 2},
        "LayerInformationFormat": {"ONELINE": 0, "JSON": 1},
    }
    if release != "10":
        enums["NetworkDefinitionCreationFlag"] = {"STRONGLY_TYPED": 0}
    if release == "rtx":
        enums["ComputeCapability"] = {"NONE": 0, "CURRENT": 1, **{f"SM{sm}": sm for sm in (75, 80, 86, 89, 120, 121)}}
        enums["CudaGraphStrategy"] = {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1}
        enums["DynamicShapesKernelSpecializationStrategy"] = {"LAZY": 0, "EAGER": 1, "NONE": 2}
        enums["EngineInvalidityDiagnostics"] = {"VERSION_MISMATCH": 1, "OLD_CUDA_DRIVER": 4, "MALFORMED_ENGINE": 32}
    return enums


def _make_builder(module, release, gpu):
    class Builder(Strict):
        __slots__ = ("logger",)

        def __init__(self, logger):
            if gpu is None and release != "rtx":
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = logger

        def create_network(self, flags=0):
            if release == "10" and not flags & (1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)):
                raise RuntimeError("a weakly typed network: precision flags would be needed")
            return {"model": None}

        def create_builder_config(self):
            return module.IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            if _PRECISIONS & config.seen_flags:
                self.logger.log(Severity.ERROR, "precision flags are not allowed with a strongly typed network")
                return None
            if "SM75" in getattr(config, "seen_sms", {}).values() and _multiplies_float32(network["model"]):
                reason = "Cannot compile operation 'product' for Turing (SM75): FP32 GEMM is not supported."
                self.logger.log(Severity.ERROR, reason)
                return None
            module.seen_configs.append(config)
            told = {"flags": sorted(config.seen_flags), "profiles": max(1, len(config.seen_profiles))}
            return _PLAN + json.dumps(told).encode() + b"\n" + network["model"]

    return Builder


def _multiplies_float32(model):
    """Whether any weight of an ONNX file is float32."""
    import onnx

    return any(one.data_type == onnx.TensorProto.FLOAT for one in onnx.load_from_string(model).graph.initializer)


def _make_parser(parses):
    class OnnxParser(Strict):
        __slots__ = ("seen_network",)

        def __init__(self, network, logger):
            self.seen_network = network

        @property
        def num_errors(self):
            return 0

        def get_error(self, index):
            raise IndexError(index)

        def parse_from_file(self, model):
            self.seen_network["model"] = Path(model).read_bytes()
            return parses

    return OnnxParser


def _make_runtime(module, release, gpu, layers):
    class Runtime(Strict):
        __slots__ = ("engine_host_code_allowed", "logger")

        def __init__(self, logger):
            self.logger, self.engine_host_code_allowed = logger, False

        def deserialize_cuda_engine(self, serialized_engine):
            head, _, _ = bytes(serialized_engine).partition(b"\n")
            if gpu is None or not head.startswith(_PLAN):
                self.logger.log(Severity.ERROR, "Error Code 1: Serialization (Magic tag does not match)")
                return None
            told = json.loads(head.removeprefix(_PLAN))
            if "VERSION_COMPATIBLE" in told["flags"] and not self.engine_host_code_allowed:
                self.logger.log(Severity.ERROR, "engine host code is not allowed")
                return None
            module.seen_engines.append(module.ICudaEngine(gpu, layers, **told))
            return module.seen_engines[-1]

    class RtxRuntime(Runtime):
        __slots__ = ()

        def get_engine_validity(self, buffer):
            return "INVALID", 0 if bytes(buffer).startswith(_PLAN) else 32

    return RtxRuntime if release == "rtx" else Runtime
