"""What ``verify`` and ``install`` say of variants for TensorRT on the device that they are for. On stand-ins."""

from dataclasses import replace

import numpy as np
import pytest

from exporter.cli.main import main
from runtimes.bundle.fit import can_run, find_misfits
from runtimes.bundle.install import InstallOptions, install
from runtimes.bundle.machine import Machine
from runtimes.bundle.rebuild import describe_build, describe_rebuild
from runtimes.bundle.verify import VerifyOptions, verify_bundle
from runtimes.errors import CorruptArtifact, MissingDependency
from runtimes.trt import device
from runtimes.trt.build import build_plan
from runtimes.trt.options import BuildOptions
from runtimes.trt.profiles import parse_profile
from runtimes.trt.record import read_record
from tests.stand_ins.machine import make_machine, write_copy
from tests.unit.runtimes.serving.real_bundle import Maker

PROFILE = parse_profile("min=1x1,opt=2x1,max=8x1")


@pytest.fixture
def maker(tmp_path):
    return Maker(tmp_path)


@pytest.fixture
def graph(tmp_path):
    return write_copy(tmp_path / "copy.onnx")


def make_graph_only(maker, graph, **changes):
    options = describe_build("tensorrt", BuildOptions(profiles=(PROFILE,)))
    return maker.variant("orin", model=graph, runtime="tensorrt", rebuild=options, sm="89", **changes)


def make_planned(maker, graph, machine, **options):
    """A variant with the plan that this machine builds."""
    build = BuildOptions(profiles=(PROFILE,), **options)
    plan = build_plan(machine.library, graph, graph.with_name("model.plan"), build).path
    record = graph.with_name("model.plan.json").read_bytes()
    made = read_record(plan)
    files = {"model.sm89.plan": plan.read_bytes(), "model.sm89.plan.json": record}
    return maker.variant(
        "rtx", model=graph, files=files, runtime="tensorrt", rebuild=describe_rebuild(made),
        sm="89", tensorrt=made.version,
    )  # fmt: skip


def write(maker, tmp_path, *variants, **changes):
    return maker.write(tmp_path / "b.stepdown.tar.gz", *variants, **{"task": None, "labels": (), **changes})


def test_a_graph_alone_passes_where_its_plan_can_be_built(maker, graph, tmp_path, monkeypatch, capsys):
    machine = make_machine("10", monkeypatch)
    path = write(maker, tmp_path, make_graph_only(maker, graph))
    report = verify_bundle(path)
    assert (report.verdict, report.failures) == ("pass", ())
    assert (report.variants[0].fits, report.variants[0].is_built_there) == (True, True)
    assert main(["verify", str(path)]) == 0
    assert "orin  fits once its plan is built here\n" in capsys.readouterr().out
    assert main(["install", str(path), "--root", str(tmp_path / "models")]) == 0
    assert machine.module.seen_configs == []


def test_a_plan_that_brings_code_is_verified_where_that_is_allowed(maker, graph, tmp_path, monkeypatch):
    machine = make_machine("10", monkeypatch)
    path = write(maker, tmp_path, make_planned(maker, graph, machine, version_compatible=True))
    (failure,) = verify_bundle(path).failures
    assert "--allow-host-code" in failure.cure
    report = verify_bundle(path, VerifyOptions(allow_host_code=True))
    assert report.verdict == "pass"
    assert "agrees" in report.variants[0].probe
    words = ["install", str(path), "--root", str(tmp_path / "models")]
    assert main(words) == 8
    assert main([*words, "--allow-host-code"]) == 0


def remove_gpu(monkeypatch):
    def no_driver():
        raise MissingDependency("there is no NVIDIA driver")

    monkeypatch.setattr(device, "_import_driver", no_driver)
    device.read_compute_capability.cache_clear()


def test_what_the_policy_leaves_out_does_not_fit(maker, graph, tmp_path, monkeypatch, capsys):
    """Else it is installed, and then nothing runs."""
    machine = make_machine("10", monkeypatch)
    variants = (make_planned(maker, graph, machine), maker.variant("cpu", model=graph))
    path = write(maker, tmp_path, *variants, policy=("plan", "rebuild"))
    assert [one.fits for one in verify_bundle(path).variants] == [True, False]
    remove_gpu(monkeypatch)
    report = verify_bundle(path)
    assert [one.fits for one in report.variants] == [False, False]
    (failure,) = [one for one in report.failures if one.where == "cpu"]
    assert (failure.expected, failure.found) == ("cpu", "plan, rebuild")
    assert "--policy plan,rebuild,cpu" in failure.cure
    words = ["install", str(path), "--root", str(tmp_path / "models")]
    assert main(words) == 8
    assert main([*words, "--no-probe"]) == 8
    assert "policy leaves out" in capsys.readouterr().err


@pytest.mark.parametrize(("release", "sm"), [("11", 89), ("10", 86)])
def test_a_plan_that_may_not_be_built_anew_fits_as_it_came_or_not_at_all(
    maker, graph, tmp_path, monkeypatch, release, sm
):
    machine = make_machine("10", monkeypatch)
    path = write(maker, tmp_path, make_planned(maker, graph, machine), policy=("plan",))
    assert verify_bundle(path).verdict == "pass"
    make_machine(release, monkeypatch, sm=sm)
    report = verify_bundle(path)
    assert (report.verdict, report.variants[0].fits) == ("fail", False)
    assert ("rebuild", "plan") in [(failure.expected, failure.found) for failure in report.failures]
    with pytest.raises(CorruptArtifact, match="nothing of the bundle runs here"):
        install(path, tmp_path / "models")
    assert install(path, tmp_path / "models", InstallOptions(allow_unfit=True)).path.is_dir()


def test_a_plan_that_is_only_built_here_is_not_run_as_it_came(maker, graph, tmp_path, monkeypatch):
    machine = make_machine("10", monkeypatch)
    path = write(maker, tmp_path, make_planned(maker, graph, machine), policy=("rebuild",))
    (variant,) = verify_bundle(path).variants
    assert (variant.fits, variant.is_built_there, variant.probe) == (True, True, None)


def test_a_plan_whose_record_is_not_read_yet_may_fit(maker, graph, monkeypatch):
    """It knows of more GPUs than the requirements name; opening it has the last word."""
    machine = make_machine("10", monkeypatch)
    variant = make_planned(maker, graph, machine)
    here = Machine(
        name="here", arch=variant.requires.arch, level="baseline", onnxruntime=None, memory_bytes=None,
        tensorrt={"tensorrt": machine.library.version}, sm=120,
    )  # fmt: skip
    assert can_run(variant, find_misfits(variant, here, policy=("plan",)))
    record = read_record(graph.with_name("model.plan"))
    assert not can_run(variant, find_misfits(variant, here, record, policy=("plan",)))


def test_a_graph_alone_needs_to_be_built(maker, graph, tmp_path, monkeypatch):
    make_machine("10", monkeypatch)
    path = write(maker, tmp_path, make_graph_only(maker, graph), policy=("plan", "cpu"))
    (failure,) = verify_bundle(path).failures
    assert (failure.expected, failure.found) == ("rebuild", "plan, cpu")


def test_an_older_tensorrt_than_the_profiles_builds_nothing(maker, graph, tmp_path, monkeypatch, capsys):
    machine = make_machine("10", monkeypatch)
    variant = make_graph_only(maker, graph)
    path = write(maker, tmp_path, replace(variant, device={**variant.device, "tensorrt": ">=99.1"}))
    (failure,) = verify_bundle(path).failures
    assert (failure.stage, failure.expected, failure.found) == ("fit", ">=99.1", machine.library.version)
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4), np.float32))
    assert main(["run", str(path), "--inputs", str(tmp_path / "x.npz")]) == 8
    assert "too old to build its plan" in capsys.readouterr().err
    assert machine.module.seen_configs == []
