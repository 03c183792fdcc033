"""Sessions on stand-ins of CUDA and TensorRT: which calls are made, in which order, and that all is given back.

That TensorRT answers right, and how fast, is for a machine with a GPU: tests/contract.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact import hash_file
from runtimes.errors import CorruptArtifact, DataError, UnsupportedModel, UsageError
from runtimes.trt.build import build_plan
from runtimes.trt.options import BuildOptions, Expectation, RunOptions, TrtOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.record import read_record, write_record
from runtimes.trt.runtime import TensorRt
from tests.stand_ins import tensorrt_running
from tests.stand_ins.cuda_driver import CUresult, Gpu
from tests.stand_ins.machine import make_machine, write_copy

SMALL, LARGE = parse_profile("min=1x1,opt=1x1,max=2x1"), parse_profile("min=1x1,opt=16x1,max=32x1")
RELEASES = ["10", "11", "rtx"]


@pytest.fixture(params=RELEASES)
def machine(request, monkeypatch):
    return make_machine(request.param, monkeypatch)


def build(machine, folder, **build_options):
    options = BuildOptions(**{"profiles": (SMALL, LARGE), **build_options})
    return build_plan(machine.library, write_copy(folder / "model.onnx"), folder / "m.plan", options)


def open_plan(machine, folder, *, run=None, **build_options):
    return TensorRt(TrtOptions(run=run or RunOptions())).open(build(machine, folder, **build_options))


def feeds(batch, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal((batch, 4)).astype(np.float32)}


def find_context(machine):
    return machine.module.seen_engines[-1].seen_contexts[-1]


def test_answers_come_back_for_every_shape(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    for batch in (1, 2, 32, 3):
        given = feeds(batch, seed=batch)
        np.testing.assert_array_equal(session.run(given)["y"], given["x"])
    assert [spec.name for spec in (*session.inputs, *session.outputs)] == ["x", "y"]


def test_an_answer_is_not_overwritten_by_the_next(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    first = session.run(feeds(2))["y"]
    kept = first.copy()
    session.run(feeds(2, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_strided_feeds_reach_the_gpu_in_order(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    given = np.asfortranarray(feeds(3)["x"])
    np.testing.assert_array_equal(session.run({"x": given})["y"], given)


def test_a_prepared_call_runs_on_what_the_feeds_hold_then(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    given = feeds(2)
    call = session.prepare(given)
    given["x"][:] = 7
    np.testing.assert_array_equal(call()["y"], np.full((2, 4), 7, np.float32))


def test_inputs_that_stay_on_the_gpu_are_copied_once(machine, tmp_path):
    session = open_plan(machine, tmp_path, run=RunOptions(device_inputs=True))
    given = feeds(2)
    before = given["x"].tobytes()
    call = session.prepare(given)
    given["x"][:] = 7
    assert call() is None
    assert [block.raw for block in machine.gpu.memory.values()] == [before, before]


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_who_replays_the_run(machine, tmp_path, cuda_graph):
    """TensorRT's run is recorded here; TensorRT-RTX records by itself, when its kernels are finished."""
    session = open_plan(machine, tmp_path, run=RunOptions(cuda_graph=cuda_graph))
    call = session.prepare(feeds(2))
    call()
    call()
    config = find_context(machine).seen_config
    if machine.library.name == "tensorrt":
        assert (config, machine.gpu.launches) == (None, 2 if cuda_graph else 0)
    else:
        assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
        told = getattr(config, "cuda_graph_strategy", None)
        assert (told.name if told else None, machine.gpu.launches) == ("WHOLE_GRAPH_CAPTURE" if cuda_graph else None, 0)


@pytest.mark.parametrize("between", [(4,), (4, 2)], ids=["other shape", "there and back"])
def test_a_call_for_other_shapes_is_refused(machine, tmp_path, between):
    session = open_plan(machine, tmp_path)
    call = session.prepare(feeds(2))
    for batch in between:
        session.run(feeds(batch))
    with pytest.raises(UsageError, match="prepare it again"):
        call()


def test_runs_of_the_same_shape_leave_a_call_as_it_was(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    given = feeds(2)
    call = session.prepare(given)
    session.run(feeds(2, seed=1))
    session.prepare(feeds(2, seed=2))()
    np.testing.assert_array_equal(call()["y"], given["x"])


def test_any_thread_may_run_it(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    given = feeds(2)
    call = session.prepare(given)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(pool.submit(session.run, given).result()["y"], given["x"])
        np.testing.assert_array_equal(pool.submit(call).result()["y"], given["x"])
        pool.submit(session.close).result()
    assert machine.gpu.left() == {}


def test_closing_gives_everything_back_and_ends_every_call(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    call = session.prepare(feeds(2))
    session.run(feeds(32))
    session.prepare(feeds(1))
    assert machine.gpu.left() != {}
    session.close()
    session.close()
    assert machine.gpu.left() == {}
    for closed in (call, lambda: session.run(feeds(2)), session.list_layers):
        with pytest.raises(UsageError, match="closed"):
            closed()


def test_the_profile_follows_the_shape(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    for batch in (1, 2, 20, 32, 1):
        session.run(feeds(batch))
    assert find_context(machine).seen_profiles == [1, 0]


def test_a_profile_that_the_plan_has_not_is_an_error(machine, tmp_path):
    plan = build(machine, tmp_path)
    both = read_record(plan.path).profiles
    plan = build(machine, tmp_path, profiles=(SMALL,))
    write_record(plan.path, replace(read_record(plan.path), profiles=both))
    session = TensorRt().open(plan)
    with pytest.raises(UnsupportedModel, match="refuses profile 1"):
        session.run(feeds(20))
    session.run(feeds(1))


@pytest.mark.parametrize("call", ["cuStreamCreate", "cuGraphInstantiate"])
def test_a_gpu_that_refuses_keeps_nothing(monkeypatch, tmp_path, call):
    machine = make_machine("11", monkeypatch)
    plan = build(machine, tmp_path)
    monkeypatch.setattr(Gpu, call, lambda *_: (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None))
    with ExitStack() as stack, pytest.raises(UsageError, match="OUT_OF_MEMORY"):
        stack.enter_context(closing(TensorRt().open(plan))).prepare(feeds(1))
    assert machine.gpu.left() == {}


def test_a_shape_outside_of_every_profile_is_refused_and_the_session_goes_on(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    given = feeds(2)
    call = session.prepare(given)
    with pytest.raises(DataError, match=r"x 33x4(.|\n)*x 1x4 to 32x4"):
        session.run(feeds(33))
    np.testing.assert_array_equal(call()["y"], given["x"])


def test_wrong_feeds_say_what_was_expected(machine, tmp_path):
    session = open_plan(machine, tmp_path)
    with pytest.raises(DataError, match="expected dtype float32"):
        session.run({"x": np.zeros((2, 4))})
    with pytest.raises(DataError, match="axis 1 is fixed"):
        session.run({"x": np.zeros((2, 5), np.float32)})


@pytest.mark.parametrize("release", RELEASES)
def test_full_memory_says_what_helps_and_leaves_nothing(release, monkeypatch, tmp_path):
    machine = make_machine(release, monkeypatch, memory_bytes=100)
    session = open_plan(machine, tmp_path)
    session.run(feeds(2))
    with pytest.raises(UsageError, match=r"CUDA_ERROR_OUT_OF_MEMORY(.|\n)*smaller batch"):
        session.run(feeds(20))
    session.run(feeds(1))
    session.close()
    assert machine.gpu.left() == {}


def test_no_memory_for_a_context_leaves_nothing(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_running.ICudaEngine, "create_execution_context", lambda *_: None)
    with pytest.raises(UnsupportedModel, match="--weight-streaming or a smaller --profile"):
        open_plan(machine, tmp_path)
    assert machine.gpu.left() == {}


def test_a_run_that_fails_while_it_is_recorded_ends_the_recording(monkeypatch, tmp_path):
    machine = make_machine("11", monkeypatch)
    session = open_plan(machine, tmp_path)
    runs = iter([True, False, True])
    monkeypatch.setattr(tensorrt_running.IExecutionContext, "execute_async_v3", lambda *_: next(runs))
    with pytest.raises(UnsupportedModel, match="failed to run the plan"):
        session.prepare(feeds(2))
    session.run(feeds(2))
    session.close()
    assert machine.gpu.left() == {}


def test_an_output_whose_size_depends_on_values_is_refused(machine, tmp_path, monkeypatch):
    session = open_plan(machine, tmp_path)
    monkeypatch.setattr(tensorrt_running.IExecutionContext, "get_tensor_shape", lambda *_: (-1, 4))
    with pytest.raises(UnsupportedModel, match=r"depends on values \(at y\)"):
        session.run(feeds(2))


def test_finished_kernels_are_kept_in_a_file(monkeypatch, tmp_path):
    machine = make_machine("rtx", monkeypatch)
    run = RunOptions(runtime_cache=tmp_path / "kernels")
    for kept in (b"finished;", b"finished;finished;"):
        open_plan(machine, tmp_path, run=run).close()
        assert run.runtime_cache.read_bytes() == kept
    run.runtime_cache.write_bytes(b"foreign")
    with pytest.raises(UsageError, match="another version or GPU"):
        open_plan(machine, tmp_path, run=run)
    assert run.runtime_cache.read_bytes() == b"foreign"
    assert machine.gpu.left() == {}


def test_a_library_that_finishes_no_kernels_keeps_none(monkeypatch, tmp_path):
    machine = make_machine("11", monkeypatch)
    with pytest.raises(UsageError, match="finishes no kernels"):
        open_plan(machine, tmp_path, run=RunOptions(runtime_cache=tmp_path / "kernels"))


@pytest.mark.parametrize(("memory_bytes", "kept"), [(1 << 20, 1000), (800, 600), (50, 0)])
@pytest.mark.parametrize("release", RELEASES)
def test_what_does_not_fit_beside_the_activations_is_streamed(release, monkeypatch, tmp_path, memory_bytes, kept):
    machine = make_machine(release, monkeypatch, memory_bytes=memory_bytes)
    open_plan(machine, tmp_path, weight_streaming=True)
    assert machine.module.seen_engines[-1].weight_streaming_budget_v2 == kept


def test_a_budget_that_is_not_taken_is_an_error(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt_running.ICudaEngine, "weight_streaming_budget_v2", property(lambda _: 7, lambda *_: 0))
    with pytest.raises(UnsupportedModel, match="without --weight-streaming"):
        open_plan(machine, tmp_path, weight_streaming=True)
    assert machine.gpu.left() == {}


@pytest.fixture(params=["10", "11"])
def enterprise(request, monkeypatch):
    return make_machine(request.param, monkeypatch)


def test_a_stripped_plan_takes_its_weights_from_the_graph_beside_it(enterprise, tmp_path):
    open_plan(enterprise, tmp_path, strip=True)
    engine = enterprise.module.seen_engines[-1]
    assert engine.seen_weights == (tmp_path / "model.onnx").read_bytes()
    assert engine.seen_flags == ["REFIT_IDENTICAL", "STRIP_PLAN"]


@pytest.mark.parametrize("beside", ["nothing", "another graph"])
def test_a_stripped_plan_without_its_graph_is_refused(enterprise, tmp_path, beside):
    plan = build(enterprise, tmp_path, strip=True)
    (tmp_path / "model.onnx").unlink()
    if beside == "another graph":
        write_copy(tmp_path / "model.onnx", operator="Relu")
    with pytest.raises(CorruptArtifact, match=r"holds no weights(.|\n)*whole directory"):
        TensorRt().open(plan)
    assert enterprise.module.seen_engines == []


def test_a_plan_takes_other_weights_only_if_it_was_built_to(enterprise, tmp_path):
    weights = write_copy(tmp_path / "trained.onnx", operator="Neg")
    run = RunOptions(weights=weights)
    open_plan(enterprise, tmp_path, run=run, refit=True)
    assert enterprise.module.seen_engines[-1].seen_weights == weights.read_bytes()
    with pytest.raises(UsageError, match="--refit"):
        open_plan(enterprise, tmp_path, run=run, strip=True)
    weights.write_bytes(b"other weights")
    with pytest.raises(UnsupportedModel, match="Gemm first: the weights have another shape"):
        open_plan(enterprise, tmp_path, run=run, refit=True)


def test_a_plan_that_brings_its_own_runtime_is_opened_on_request_only(enterprise, tmp_path):
    with pytest.raises(UsageError, match="--allow-host-code"):
        open_plan(enterprise, tmp_path, version_compatible=True)
    open_plan(enterprise, tmp_path, version_compatible=True, run=RunOptions(allow_host_code=True))


def test_a_layer_that_was_not_picked_is_an_error_and_can_be_seen(monkeypatch, tmp_path):
    layer = {"Name": "mm", "Inputs": [{"DataType": "HALF"}], "Metadata": "[ONNX Layer: first]"}
    machine = make_machine("11", monkeypatch, layers=[layer])
    plan = build(machine, tmp_path, expected=Expectation(int8=("first",)))
    with pytest.raises(UnsupportedModel, match=r"1 of 1 layers do not run in INT8: first(.|\n)*--allow-unpicked"):
        TensorRt().open(plan)
    rows = TensorRt().list_layers(plan.path)
    assert [(row.name, row.precision, row.nodes) for row in rows] == [("mm", "float16", ("first",))]
    session = TensorRt().open(build(machine, tmp_path))
    assert session.list_layers() == rows
    session.close()
    assert machine.gpu.left() == {}


@pytest.mark.parametrize(
    ("release", "sm", "cure"),
    [
        ("11", 80, "build it on this GPU"),
        ("rtx", 75, "export with --sm 75"),
        ("rtx", 90, r"build there with stepdown\[tensorrt\]"),
    ],
)
def test_a_plan_for_another_gpu_says_what_to_do(monkeypatch, tmp_path, release, sm, cure):
    plan = build(make_machine(release, monkeypatch), tmp_path)
    make_machine(release, monkeypatch, sm=sm)
    with pytest.raises(CorruptArtifact, match=f"this GPU is sm{sm}(.|\n)*{cure}"):
        TensorRt().open(plan)


def test_a_plan_of_another_version_says_what_to_install(machine, monkeypatch, tmp_path):
    plan = build(machine, tmp_path)
    newer = replace(machine.library, version="99.1.0.1")
    monkeypatch.setattr("runtimes.trt.runtime.open_library", lambda _: newer)
    with pytest.raises(CorruptArtifact, match=rf"this is 99\.1\.0\.1(.|\n)*=={machine.library.version}"):
        TensorRt().open(plan)


def test_a_plan_that_does_not_load_says_why(machine, tmp_path):
    plan = build(machine, tmp_path)
    record = plan.path.with_name("m.plan.json")
    before = plan.sha256
    plan.path.write_bytes(b"not a plan at all")
    record.write_text(record.read_text().replace(before, hash_file(plan.path)))
    said = "MALFORMED_ENGINE" if machine.library.name == "tensorrt-rtx" else "Magic tag does not match "
    with pytest.raises(CorruptArtifact, match=f"does not load the plan(.|\n)*{said}"):
        TensorRt().open(plan)
