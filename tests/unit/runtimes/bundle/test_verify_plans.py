"""What ``verify`` and ``install`` say of variants for TensorRT on the device that they are for. On stand-ins."""

import pytest

from exporter.cli.main import main
from runtimes.bundle.rebuild import describe_build, describe_rebuild
from runtimes.bundle.verify import VerifyOptions, verify_bundle
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
