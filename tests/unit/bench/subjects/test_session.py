"""Which runtime a subject is opened with, and which clock it is timed by."""

import numpy as np
import pytest

from bench.measuring.alone import hash_model
from bench.subjects.session import choose_clock, choose_runtime, open_session
from bench.subjects.subject import SubjectSpec
from bench.timing.measure import Clock
from runtimes.artifact import hash_file
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.ort import OnnxRuntime
from runtimes.trt.build import build_plan
from runtimes.trt.device import read_compute_capability
from runtimes.trt.options import BuildOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.runtime import TensorRt
from tests.stand_ins.machine import make_machine, write_copy


def plan_spec(path, **other):
    return SubjectSpec(label="ours", runtime="tensorrt", device="cuda", model=path, kind="plan", **other)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    machine = make_machine("11", monkeypatch)
    monkeypatch.setattr("runtimes.trt.runtime.find_libraries", lambda: (machine.library,))
    options = BuildOptions(profiles=(parse_profile("min=1x1,opt=2x1,max=4x1"),))
    yield build_plan(machine.library, write_copy(tmp_path / "model.onnx"), tmp_path / "m.plan", options).path
    read_compute_capability.cache_clear()


def test_a_plan_is_run_by_tensorrt_which_waits_by_itself(plan):
    spec = plan_spec(plan)
    assert isinstance(choose_runtime(spec), TensorRt)
    assert choose_clock(spec) == Clock()
    opened = open_session(spec)
    given = {"x": np.ones((2, 4), np.float32)}
    np.testing.assert_array_equal(opened.session.run(given)["y"], given["x"])
    assert opened.load_ns > 0
    assert hash_model(spec) == hash_file(plan)
    opened.session.close()


def test_inputs_stay_on_the_gpu_where_asked(plan):
    assert choose_runtime(plan_spec(plan, device_inputs=True)).options.run.device_inputs
    assert not choose_runtime(plan_spec(plan)).options.run.device_inputs


def test_a_plan_brings_code_only_where_that_is_allowed(plan):
    assert choose_runtime(plan_spec(plan, allow_host_code=True)).options.run.allow_host_code
    assert not choose_runtime(plan_spec(plan)).options.run.allow_host_code


def test_a_plan_without_a_gpu_or_without_its_record_is_an_error(plan, monkeypatch):
    plan.with_name("m.plan.json").unlink()
    with pytest.raises(CorruptArtifact, match="no record"):
        open_session(plan_spec(plan))
    monkeypatch.setattr("runtimes.trt.runtime.why_no_gpu", lambda: "no NVIDIA GPU can be used")
    with pytest.raises(MissingDependency, match=r"no NVIDIA GPU can be used \(at ours\)"):
        open_session(plan_spec(plan))


def test_an_onnx_file_is_run_by_onnxruntime(tmp_path):
    path = write_copy(tmp_path / "m.onnx")
    spec = SubjectSpec(label="ours", runtime="onnxruntime", device="cpu", model=path, kind="onnx", affinity=(0,))
    runtime = choose_runtime(spec)
    assert isinstance(runtime, OnnxRuntime)
    assert runtime.options.threads == 1
    assert choose_clock(spec) == Clock()


@pytest.mark.parametrize(
    ("runtime", "device", "form"),
    [
        ("torch", "cpu", None),
        ("torch-csr", "cpu", "csr"),
        ("torch-semi-structured", "cuda", "semi-structured"),
        ("torch-semi-structured-int8", "cuda", "semi-structured-int8"),
    ],
)
def test_pytorch_takes_the_sparse_form_of_its_name(tmp_path, runtime, device, form):
    spec = SubjectSpec(label="ours", runtime=runtime, device=device, model=tmp_path, kind="huggingface")
    options = choose_runtime(spec).options
    assert (options.sparse, options.device, options.compiled) == (form, device, False)
