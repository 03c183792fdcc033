"""TensorRT on a device: the plan as it comes, else one built here, else the CPU; each step said. On stand-ins."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from runtimes.bundle.build_here import open_built_here
from runtimes.bundle.home import read_home
from runtimes.bundle.install import install
from runtimes.bundle.open_variant import ServeOptions
from runtimes.bundle.rebuild import describe_build, describe_rebuild
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.serving.bundle import open_bundle
from runtimes.trt import device
from runtimes.trt.build import build_plan
from runtimes.trt.options import BuildOptions, Expectation
from runtimes.trt.profiles import parse_profile
from runtimes.trt.record import read_record
from tests.stand_ins.machine import make_machine, write_copy
from tests.unit.runtimes.serving.real_bundle import Maker

PROFILE = parse_profile("min=1x1,opt=2x1,max=8x1")
X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A bundle with a plan that TensorRT 10 built for sm89, its graph, and a variant for the CPU; installed."""
    machine = make_machine("10", monkeypatch)
    graph = write_copy(tmp_path / "copy.onnx")
    plan = build_plan(machine.library, graph, tmp_path / "model.plan", BuildOptions(profiles=(PROFILE,))).path
    return make(tmp_path, graph, plan)


def make(tmp_path, graph, plan, *, rebuild=True, policy=("plan", "rebuild", "cpu"), with_cpu=True, **changes):
    maker = Maker(tmp_path / f"maker{len(list(tmp_path.iterdir()))}")
    record = read_record(plan)
    files = {"model.sm89.plan": plan.read_bytes(), "model.sm89.plan.json": (tmp_path / "model.plan.json").read_bytes()}
    options = describe_rebuild(record) if rebuild is True else rebuild
    gpu = maker.variant(
        "rtx", model=graph, files=files, runtime="tensorrt", rebuild=options or None,
        **{"sm": "89", "tensorrt": record.version, **changes},
    )  # fmt: skip
    variants = (gpu, maker.variant("cpu", model=graph)) if with_cpu else (gpu,)
    path = maker.write(tmp_path / "trt.stepdown.tar.gz", *variants, policy=policy, task=None, labels=())
    return install(path, tmp_path / "root").path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(place, **options):
    """Return the notes behind the signature's, and what was logged; the answer is right."""
    said = []
    with open_bundle(place).session(ServeOptions(**options), say=said.append) as session:
        np.testing.assert_array_equal(session.run(X)["y"], X["x"])
        return session.variant, session.notes[1:], said


def test_a_plan_that_fits_runs_and_nothing_is_said(made, cache):
    assert run(made) == ("rtx", ("runs rtx (plan)",), [])
    assert not cache.exists()


@pytest.mark.parametrize(("release", "sm", "reason"), [("11", 89, "the plan is of tensorrt 10.13"), ("10", 86, "sm86")])
def test_a_plan_of_another_version_or_gpu_is_built_again_here_once(made, monkeypatch, cache, release, sm, reason):
    machine = make_machine(release, monkeypatch, sm=sm)
    variant, notes, said = run(made)
    assert variant == "rtx"
    assert "rtx (plan) does not run here" in notes[0]
    assert reason in notes[0]
    assert notes[1] == "runs rtx (rebuild)"
    assert "built here in" in notes[2]
    assert f"for sm{sm}" in notes[2]
    assert [line.partition(": ")[2] for line in said] == list(notes[:2])
    assert len(machine.module.seen_configs) == 1
    assert machine.module.seen_configs[0].seen_profiles == [{"x": ((1, 4), (2, 4), (8, 4))}]
    _, notes, _ = run(made)
    assert "built here before" in notes[2]
    assert len(machine.module.seen_configs) == 1
    (place,) = (cache / "plans").iterdir()
    (place / "model.plan").write_bytes(b"damaged")
    _, notes, _ = run(made)
    assert "built here in" in notes[2]
    assert len(machine.module.seen_configs) == 2


def test_each_gpu_and_version_has_a_plan_of_its_own(made, monkeypatch, cache):
    for release, sm in (("11", 89), ("10", 86), ("11", 86), ("11", 89)):
        make_machine(release, monkeypatch, sm=sm)
        assert run(made)[1][1] == "runs rtx (rebuild)"
    assert len(list((cache / "plans").iterdir())) == 3


def test_the_other_package_builds_where_the_bundles_own_is_missing(made, monkeypatch):
    machine = make_machine("rtx", monkeypatch, sm=120)
    variant, notes, _ = run(made)
    assert (variant, notes[1]) == ("rtx", "runs rtx (rebuild)")
    assert "tensorrt-rtx" in notes[2].lower()
    assert machine.module.seen_configs[0].seen_sms == {0: "SM120"}


def test_without_a_gpu_the_cpu_runs_and_it_is_said(made, monkeypatch, caplog):
    def no_driver():
        raise MissingDependency("there is no NVIDIA driver")

    make_machine("10", monkeypatch)
    monkeypatch.setattr(device, "_import_driver", no_driver)
    device.read_compute_capability.cache_clear()
    with caplog.at_level(logging.WARNING, "stepdown"), open_bundle(made).session() as session:
        assert session.variant == "cpu"
        np.testing.assert_array_equal(session.run(X)["y"], X["x"])
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    for said, step in zip(caplog.messages, ("rtx (plan)", "rtx (rebuild)"), strict=False):
        assert f"reviews: {step} does not run here: there is no NVIDIA GPU" in said
    assert caplog.messages[2] == "reviews: runs cpu (cpu)"


def test_without_tensorrt_the_cpu_runs_and_it_is_said(made, monkeypatch):
    make_machine("10", monkeypatch)

    def nothing(name):
        raise ImportError(name)

    monkeypatch.setattr("runtimes.trt.library.import_module", nothing)
    variant, notes, said = run(made)
    assert variant == "cpu"
    assert "tensorrt is not installed" in notes[0]
    assert "TensorRT is not installed" in notes[1]
    assert len(said) == 3


def test_what_tensorrt_refuses_to_build_runs_on_the_cpu(made, monkeypatch):
    machine = make_machine("11", monkeypatch)
    monkeypatch.setattr(machine.module.Builder, "build_serialized_network", lambda self, network, config: None)  # noqa: ARG005
    variant, notes, _ = run(made)
    assert variant == "cpu"
    assert "cannot build it" in notes[1]


@pytest.mark.usefixtures("made")
def test_the_policy_is_never_left(tmp_path, monkeypatch):
    """Neither in its steps nor in their order."""
    graph, plan = tmp_path / "copy.onnx", tmp_path / "model.plan"
    only_plans = make(tmp_path, graph, plan, policy=("plan", "rebuild"))
    cpu_first = make(tmp_path, graph, plan, policy=("cpu", "plan"))
    no_rebuild = make(tmp_path, graph, plan, policy=("plan", "cpu"))
    assert run(cpu_first)[:2] == ("cpu", ("runs cpu (cpu)",))
    machine = make_machine("11", monkeypatch)
    assert run(no_rebuild)[0] == "cpu"
    assert machine.module.seen_configs == []
    monkeypatch.setattr(machine.module.Builder, "build_serialized_network", lambda self, network, config: None)  # noqa: ARG005
    with pytest.raises(CorruptArtifact, match="nothing of the bundle runs here") as caught:
        open_bundle(only_plans).session()
    assert "rtx (plan)" in caught.value.what
    assert "rtx (rebuild)" in caught.value.what
    assert caught.value.where == "reviews, policy plan, rebuild"


@pytest.mark.usefixtures("made")
def test_a_bundle_without_a_graph_falls_back_to_the_cpu(tmp_path, monkeypatch):
    place = make(tmp_path, tmp_path / "copy.onnx", tmp_path / "model.plan", rebuild=None)
    make_machine("11", monkeypatch)
    variant, notes, _ = run(place)
    assert variant == "cpu"
    assert "brings no graph" in notes[1]


def test_a_graph_alone_is_built_here(tmp_path, monkeypatch):
    """As where the plan of the export was for another device."""
    make_machine("10", monkeypatch, sm=87)
    maker = Maker(tmp_path)
    graph = write_copy(tmp_path / "copy.onnx")
    gpu = maker.variant(
        "orin", model=graph, runtime="tensorrt", sm="87",
        rebuild=describe_build("tensorrt", BuildOptions(profiles=(PROFILE,))),
    )  # fmt: skip
    path = maker.write(tmp_path / "b.stepdown.tar.gz", gpu, policy=("plan", "rebuild"), task=None, labels=())
    variant, notes, said = run(install(path, tmp_path / "root").path)
    assert (variant, notes[1]) == ("orin", "runs orin (rebuild)")
    assert "brings no plan" in said[0]


def test_layers_that_another_gpu_runs_otherwise_are_said_and_not_refused(tmp_path, monkeypatch):
    make_machine("10", monkeypatch)
    graph = write_copy(tmp_path / "copy.onnx")
    maker = Maker(tmp_path)
    wanted = BuildOptions(profiles=(PROFILE,), expected=Expectation(int8=("first",)))
    gpu = maker.variant("orin", model=graph, runtime="tensorrt", sm="89", rebuild=describe_build("tensorrt", wanted))
    path = maker.write(tmp_path / "b.stepdown.tar.gz", gpu, task=None, labels=())
    _, notes, _ = run(install(path, tmp_path / "root").path)
    assert "not as in the export: 1 of 1 layers do not run in INT8: first" in notes[-1]


def test_a_plan_that_brings_code_runs_where_that_is_allowed(tmp_path, monkeypatch):
    machine = make_machine("10", monkeypatch)
    graph = write_copy(tmp_path / "copy.onnx")
    options = BuildOptions(profiles=(PROFILE,), version_compatible=True)
    plan = build_plan(machine.library, graph, tmp_path / "model.plan", options).path
    place = make(tmp_path, graph, plan)
    assert run(place, allow_host_code=True)[1] == ("runs rtx (plan)",)
    _, notes, _ = run(place)
    assert "a runtime of its own" in notes[0]
    # What is built here needs no runtime of its own.
    assert notes[1] == "runs rtx (rebuild)"


def test_a_damaged_file_is_no_reason_to_fall_back(made, monkeypatch):
    make_machine("10", monkeypatch)
    plan = made / "variants" / "rtx" / "model.sm89.plan"
    plan.chmod(0o644)
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact, match="bytes"):
        open_bundle(made).session()


@pytest.mark.usefixtures("made")
def test_a_recipe_that_is_none_is_not_installed(tmp_path):
    with pytest.raises(CorruptArtifact, match="'profiles' is missing") as caught:
        make(tmp_path, tmp_path / "copy.onnx", tmp_path / "model.plan", rebuild={"library": "tensorrt", "x": 1})
    assert caught.value.where == "rtx: rebuild.options"


def test_a_plan_is_never_taken_for_the_graph_to_build_from(made):
    home = read_home(made)
    gpu = home.description.variants[0]
    lying = replace(gpu, rebuild=replace(gpu.rebuild, graph=gpu.model))
    with pytest.raises(CorruptArtifact, match="brings no graph"):
        open_built_here(home, lying, ServeOptions())


@pytest.mark.usefixtures("made")
def test_a_bundle_that_lies_about_the_gpu_runs_no_plan_without_kernels_for_it(tmp_path, monkeypatch):
    """The plan's own record is what counts."""
    place = make(tmp_path, tmp_path / "copy.onnx", tmp_path / "model.plan", sm="86")
    make_machine("10", monkeypatch, sm=86)
    variant, notes, _ = run(place)
    assert notes[0].startswith("rtx (plan) does not run here: the plan is for sm89")
    assert (variant, notes[1]) == ("rtx", "runs rtx (rebuild)")


def test_a_plan_that_fails_after_it_was_opened_gives_its_memory_back(tmp_path, monkeypatch):
    """The CPU runs then, and the GPU is free."""
    from runtimes.errors import UnsupportedModel
    from runtimes.trt.session import TrtSession

    machine = make_machine("10", monkeypatch)
    graph = write_copy(tmp_path / "copy.onnx")
    maker = Maker(tmp_path)
    options = describe_build("tensorrt", BuildOptions(profiles=(PROFILE,)))
    gpu = maker.variant("orin", model=graph, runtime="tensorrt", sm="89", rebuild=options)
    path = maker.write(tmp_path / "b.stepdown.tar.gz", gpu, maker.variant("cpu", model=graph), task=None, labels=())
    place = install(path, tmp_path / "root").path

    def fail(_):
        raise UnsupportedModel("the inspector says nothing")

    monkeypatch.setattr(TrtSession, "list_layers", fail)
    variant, notes, _ = run(place)
    assert variant == "cpu"
    assert "the inspector says nothing" in notes[1]
    assert machine.gpu.left() == {}
