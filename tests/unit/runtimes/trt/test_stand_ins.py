"""The stand-ins say what the packages say: a removed name fails, and no name is made up."""

import inspect
import re

import numpy as np
import pytest

from runtimes.errors import MissingDependency
from runtimes.trt.library import open_library
from tests.stand_ins import cuda_driver
from tests.stand_ins.cuda_driver import Gpu, make_driver
from tests.stand_ins.tensorrt_api import make_tensorrt

CLASSES = (
    "Builder", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IOptimizationProfile",
    "ITimingCache", "OnnxParser", "OnnxParserRefitter", "ParserError", "Refitter", "Runtime",
)  # fmt: skip
RTX_CLASSES = ("IRuntimeCache", "IRuntimeConfig")
ENUMS = (
    "BuilderFlag", "HardwareCompatibilityLevel", "LayerInformationFormat", "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
)  # fmt: skip
RTX_ENUMS = (
    "ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
)  # fmt: skip


@pytest.mark.parametrize("release", ["11", "rtx"])
@pytest.mark.parametrize("flag", ["FP16", "BF16", "INT8", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS"])
def test_flags_that_11_removed_fail(release, flag):
    assert hasattr(make_tensorrt("10").BuilderFlag, flag)
    with pytest.raises(AttributeError):
        getattr(make_tensorrt(release).BuilderFlag, flag)


@pytest.mark.parametrize("release", ["10", "11", "rtx"])
@pytest.mark.parametrize("name", ["int8_calibrator", "algorithm_selector", "max_workspace_size"])
def test_what_a_config_has_not_fails(release, name):
    config = make_tensorrt(release, gpu=Gpu()).IBuilderConfig()
    with pytest.raises(AttributeError):
        setattr(config, name, None)


def test_numbers_of_flags_mean_something_else_in_another_version():
    old, new = make_tensorrt("10").BuilderFlag, make_tensorrt("11").BuilderFlag
    assert (old.SPARSE_WEIGHTS, new.SPARSE_WEIGHTS) == (7, 7)
    assert (old.VERSION_COMPATIBLE, new.VERSION_COMPATIBLE, old(12).name) == (13, 12, "REJECT_EMPTY_ALGORITHMS")


def test_10_builds_strongly_typed_networks_without_precision_flags_only(tmp_path):
    trt = make_tensorrt("10", gpu=Gpu())
    messages = []

    class Logger(trt.ILogger):
        def log(self, severity, msg):
            messages.append((severity.name, msg))

    builder = trt.Builder(Logger())
    with pytest.raises(RuntimeError, match="weakly typed"):
        builder.create_network()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    (tmp_path / "m.onnx").write_bytes(b"m")
    assert trt.OnnxParser(network, builder.logger).parse_from_file(str(tmp_path / "m.onnx"))
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.FP16)
    assert builder.build_serialized_network(network, config) is None
    assert messages == [("ERROR", "precision flags are not allowed with a strongly typed network")]


@pytest.fixture(scope="module")
def rtx():
    """The real package, whose API is that of TensorRT 11."""
    try:
        return open_library("tensorrt-rtx").module
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("release", ["11", "rtx"])
def test_no_number_of_a_flag_is_made_up(rtx, release):
    stand_in = make_tensorrt(release)
    for name in (*ENUMS, *(RTX_ENUMS if release == "rtx" else ())):
        theirs = {member: int(value) for member, value in getattr(rtx, name).__members__.items()}
        ours = {member: int(value) for member, value in getattr(stand_in, name).__members__.items()}
        assert ours.items() <= theirs.items(), name


@pytest.mark.parametrize("release", ["11", "rtx"])
@pytest.mark.parametrize("name", [*CLASSES, *RTX_CLASSES])
def test_no_name_and_no_parameter_is_made_up(rtx, release, name):
    ours = getattr(make_tensorrt(release, gpu=Gpu()), name, None)
    assert ours is not None or (release != "rtx" and name in RTX_CLASSES)
    theirs = getattr(rtx, name)
    for attribute, value in list_public(ours):
        assert hasattr(theirs, attribute), f"{name}.{attribute}"
        if inspect.isfunction(value):
            parameters = list(inspect.signature(value).parameters)[1:]
            known = read_overloads(getattr(theirs, attribute).__doc__)
            assert parameters in [names[: len(parameters)] for names in known], f"{name}.{attribute}: {known}"


def list_public(one):
    """Return the (name, value) of what a class declares, its parents included; ``seen`` is the stand-in's own."""
    found = {}
    for parent in reversed(inspect.getmro(one) if one is not None else ()):
        if parent is not object:
            found.update(vars(parent))
    return [(name, value) for name, value in found.items() if not name.startswith(("_", "seen"))]


def read_overloads(doc):
    """Return the parameters of each overload, as pybind11 writes them: ``f(self: A, name: str) -> bool``."""
    lines = [line for line in doc.splitlines() if "(self: " in line]
    return [re.findall(r"[(,] ?(\w+): ", line)[1:] for line in lines]


@pytest.mark.parametrize("name", cuda_driver.list_functions())
def test_the_driver_has_this_function_with_these_parameters(name):
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed", exc_type=ImportError)
    ours = list(inspect.signature(getattr(Gpu(), name)).parameters)
    assert [one.removesuffix("_") for one in read_parameters(getattr(driver, name))] == ours


def read_parameters(function):
    """Return the parameters of a compiled function: from its signature, or from the first line of its text."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        inside = function.__doc__.splitlines()[0].partition("(")[2].rpartition(")")[0]
        return [part.partition(":")[0].split()[-1] for part in inside.split(",")]


@pytest.mark.parametrize("enum", cuda_driver.ENUMS, ids=lambda enum: enum.__name__)
def test_the_driver_has_these_numbers(enum):
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed", exc_type=ImportError)
    theirs = getattr(driver, enum.__name__)
    assert {name: int(value) for name, value in enum.__members__.items()} == {
        name: int(getattr(theirs, name)) for name in enum.__members__
    }


def test_the_driver_is_as_strict_as_cuda():
    gpu = Gpu(memory_bytes=8)
    driver = make_driver(gpu)
    assert driver.cuMemAlloc(8)[0].name == "CUDA_ERROR_INVALID_CONTEXT"
    driver.cuCtxSetCurrent(driver.cuDevicePrimaryCtxRetain(0)[1])
    (_, stream), (_, block) = driver.cuStreamCreate(1), driver.cuMemAlloc(8)
    assert driver.cuMemAlloc(1)[0].name == "CUDA_ERROR_OUT_OF_MEMORY"
    given, answer = np.arange(8, dtype=np.int8), np.zeros(8, np.int8)
    driver.cuMemcpyHtoDAsync(block, given.ctypes.data, 8, stream)
    driver.cuMemcpyDtoHAsync(answer.ctypes.data, block, 8, stream)
    assert not answer.any()
    driver.cuStreamSynchronize(stream)
    assert answer.tolist() == given.tolist()
    assert driver.cuMemcpyHtoDAsync(block, given.ctypes.data, 9, stream)[0].name == "CUDA_ERROR_INVALID_VALUE"
    assert gpu.left() == {"memory": 1, "streams": 1, "contexts": 1}
    assert driver.cuMemFree(block)[0].name == "CUDA_SUCCESS"
    assert driver.cuMemFree(block)[0].name == "CUDA_ERROR_INVALID_HANDLE"
