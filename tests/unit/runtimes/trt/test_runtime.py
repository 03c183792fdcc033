"""TensorRT as a runtime: what it says where there is no GPU, no package, or no plan that loads."""

import sys

import pytest

from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.trt import device
from runtimes.trt.build import build_plan
from runtimes.trt.engine import load_engine
from runtimes.trt.library import choose_library
from runtimes.trt.options import BuildOptions, RunOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.record import read_record
from runtimes.trt.runtime import TensorRt
from tests.stand_ins.cuda_driver import Gpu, make_driver
from tests.stand_ins.machine import make_machine, write_copy


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine with NVIDIA's binding and no driver, whatever this one has."""

    class Driver:
        def __getattr__(self, name):
            def fail(*_):
                raise RuntimeError("Failed to dlopen libcuda.so.1")

            return fail

    monkeypatch.setattr(device, "_import_driver", Driver)
    device.read_compute_capability.cache_clear()


@pytest.fixture
def plan(tmp_path):
    """A real plan of tensorrt_rtx, which needs no GPU to make it."""
    try:
        library = choose_library("tensorrt-rtx", for_sms=True)
    except MissingDependency as error:
        pytest.skip(str(error))
    options = BuildOptions(profiles=(parse_profile("min=1x1,opt=1x1,max=2x1"),))
    return library, build_plan(library, write_copy(tmp_path / "m.onnx", operator="Relu"), tmp_path / "m.plan", options)


@pytest.mark.usefixtures("no_gpu")
def test_a_plan_is_not_opened_without_a_gpu_and_nothing_takes_its_place(plan):
    _, artifact = plan
    with pytest.raises(MissingDependency, match=r"libcuda(.|\n)*here they can only be built"):
        TensorRt().open(artifact)
    assert TensorRt().why_cannot_build() is None
    assert "here they can only be built" in TensorRt().why_unavailable()


def test_a_driver_without_a_gpu_is_no_gpu(monkeypatch):
    gpu = Gpu()
    monkeypatch.setattr(gpu, "cuDeviceGet", lambda ordinal: (type(gpu.cuInit(0)[0]).CUDA_ERROR_NO_DEVICE, ordinal))
    monkeypatch.setattr(device, "_import_driver", lambda: make_driver(gpu))
    device.read_compute_capability.cache_clear()
    assert "CUDA_ERROR_NO_DEVICE" in device.why_no_gpu()


@pytest.mark.parametrize(("sm", "capability"), [(89, 89), (120, 120), (75, 75)])
def test_the_compute_capability_is_two_digits_and_more(monkeypatch, sm, capability):
    make_machine("rtx", monkeypatch, sm=sm)
    assert device.read_compute_capability() == capability
    assert device.why_no_gpu() is None


def test_the_binding_is_a_part_of_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    device.read_compute_capability.cache_clear()
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt-rtx\]"):
        device.read_compute_capability()


def test_bytes_that_are_no_plan_are_told_from_a_missing_gpu(plan, tmp_path):
    library, artifact = plan
    record = read_record(artifact.path)
    (tmp_path / "other.plan").write_bytes(b"not a plan at all" * 9)
    with pytest.raises(CorruptArtifact, match="MALFORMED_ENGINE"):
        load_engine(library, tmp_path / "other.plan", record, RunOptions())


def test_no_package_at_all_names_the_extra(monkeypatch, tmp_path):
    def nothing(name):
        raise ImportError(name)

    monkeypatch.setattr("runtimes.trt.library.import_module", nothing)
    for reason in (TensorRt().why_unavailable(), TensorRt().why_cannot_build()):
        assert "stepdown[tensorrt-rtx]" in reason
    with pytest.raises(MissingDependency, match=r"stepdown\[tensorrt-rtx\]"):
        TensorRt().build(write_copy(tmp_path / "m.onnx"), tmp_path / "m.plan")
    assert not (tmp_path / "m.plan").exists()
