"""Fit: each requirement against machines that have it and that have not, and the cure that is named."""

from dataclasses import replace

import pytest

from runtimes.bundle.description import Rebuild, Requirements
from runtimes.bundle.fit import can_run, find_misfits
from runtimes.bundle.machine import Machine, describe_device, detect_machine, find_memory
from runtimes.bundle.profiles import list_profiles, read_profile
from runtimes.isa import detect
from runtimes.trt.options import Expectation
from runtimes.trt.record import PlanRecord
from tests.unit.runtimes.bundle.tiny_bundle import make_variant

MACHINE = Machine(name="m", arch="x86_64", level="avx2", onnxruntime="1.31.1", memory_bytes=1 << 30)
GPU = replace(MACHINE, tensorrt={"tensorrt": "10.16.1.11"}, sm=89)


def make(runtime="onnxruntime", artifact=None, device=None, rebuild=None, **changes):
    parts = {"arch": "x86_64", "isa": None, "onnxruntime": ">=1.24", "memory_bytes": 1 << 20, "sm": None}
    variant = make_variant(
        runtime=runtime, requires=Requirements(**{**parts, "tensorrt": None, **changes}), rebuild=rebuild
    )
    return replace(variant, artifact={**variant.artifact, **(artifact or {})}, device=device or {})


def make_plan(options=None, **changes):
    rebuild = Rebuild(graph="model.onnx", options=options) if options is not None else None
    parts = {"onnxruntime": None, "sm": "89", "tensorrt": "10.16.1", **changes}
    return make("tensorrt", device={"tensorrt_library": "tensorrt"}, rebuild=rebuild, **parts)


def parts(variant, machine=MACHINE):
    return [misfit.part for misfit in find_misfits(variant, machine)]


def test_what_fits_has_no_misfit():
    assert find_misfits(make(isa="avx2"), MACHINE) == ()
    assert can_run(make(), ())


def test_another_architecture_is_said_once():
    assert parts(make(arch="aarch64", isa="dotprod", memory_bytes=1 << 40)) == ["arch"]


@pytest.mark.parametrize(
    ("required", "level", "fit"),
    [
        ("vnni", "avx2", False),
        ("vnni", "avx512", False),
        ("vnni", "vnni", True),
        ("vnni", "amx", True),
        ("avx2", "amx", True),
        ("avx2", "baseline", False),
        ("baseline", "baseline", True),
        (None, "baseline", True),
        ("dotprod", "amx", False),  # of another architecture: a description that contradicts itself
    ],
)
def test_arithmetic_is_judged_by_rank(required, level, fit):
    misfits = find_misfits(make(isa=required), replace(MACHINE, level=level))
    assert [misfit.part for misfit in misfits] == ([] if fit else ["isa"])
    if not fit:
        assert (misfits[0].expected, misfits[0].found) == (required, level)
        assert f"--for-isa {level}" in misfits[0].cure


AVX_VNNI = frozenset({"avx2", "fma", "avx_vnni"})
AVX512_VNNI = frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"})


@pytest.mark.parametrize(
    ("required", "features", "fit"),
    [
        ("avx512", AVX_VNNI, False),
        ("avx512", AVX512_VNNI, True),
        ("vnni", AVX_VNNI, True),
        ("vnni", AVX512_VNNI, True),
        ("avx2", AVX_VNNI, True),
        ("amx", AVX512_VNNI, False),
    ],
)
def test_a_cpu_may_have_vnni_without_avx512(required, features, fit):
    misfits = find_misfits(make(isa=required), replace(MACHINE, level="vnni", features=features))
    assert [misfit.part for misfit in misfits] == ([] if fit else ["isa"])
    assert [misfit.found for misfit in misfits] in ([], ["vnni"], ["vnni without avx512"])


def test_this_machine_tells_its_features():
    assert detect_machine(gpu=False).features == detect().features


def test_arm_has_its_own_ranks():
    arm = replace(MACHINE, arch="aarch64", level="neon")
    assert parts(make(arch="aarch64", isa="dotprod"), arm) == ["isa"]
    assert parts(make(arch="aarch64", isa="neon"), replace(arm, level="dotprod")) == []


@pytest.mark.parametrize("made_for", ["vnni", "amx", "no such level"])
def test_a_requirement_below_what_the_graph_was_made_for_does_not_pass(made_for):
    """The description may claim AVX2 of a graph whose products saturate there."""
    artifact = {"isa": made_for, "exact_on_any_cpu": False}
    assert parts(make(isa="avx2", artifact=artifact)) == ["isa"]
    assert parts(make(isa=None, artifact=artifact)) == ["isa"]
    assert parts(make(isa="avx2", artifact={"isa": made_for, "exact_on_any_cpu": True})) == []


def test_onnxruntime_is_there_and_new_enough():
    assert parts(make(), replace(MACHINE, onnxruntime=None)) == ["onnxruntime"]
    (misfit,) = find_misfits(make(onnxruntime=">=1.24"), replace(MACHINE, onnxruntime="1.23.2"))
    assert (misfit.expected, misfit.found, misfit.cure) == (">=1.24", "1.23.2", "pip install 'onnxruntime>=1.24'")
    assert parts(make(onnxruntime=">=1.24"), replace(MACHINE, onnxruntime="1.24.0")) == []


def test_memory_is_enough_where_it_is_known():
    assert parts(make(memory_bytes=2 << 30)) == ["memory"]
    assert parts(make(memory_bytes=2 << 30), replace(MACHINE, memory_bytes=None)) == []


def test_a_plan_needs_its_package_its_version_and_its_gpu():
    assert parts(make_plan(), GPU) == []
    assert parts(make_plan(), MACHINE) == ["tensorrt", "gpu"]
    assert parts(make_plan(), replace(GPU, tensorrt={"tensorrt-rtx": "1.7.1"})) == ["tensorrt"]
    assert parts(make_plan(tensorrt="10.15.0"), GPU) == ["plan-version"]
    assert parts(make_plan(sm="87"), GPU) == ["plan-gpu"]


def make_record(**changes):
    parts = {
        "library": "tensorrt",
        "version": "10.16.1",
        "sms": (86,),
        "hardware": "this",
        "version_compatible": False,
        "profiles": (),
        "flags": (),
        "settings": {},
        "model_sha256": "",
        "plan_sha256": "",
        "inputs": (),
        "outputs": (),
        "expected": Expectation(),
        "repeats": False,
    }
    return PlanRecord(**{**parts, **changes})


@pytest.mark.parametrize(
    ("record", "requires", "found"),
    [
        (None, {"sm": "86"}, ["plan-gpu"]),
        ({}, {"sm": "86"}, ["plan-gpu"]),
        ({"hardware": "ampere-plus"}, {"sm": "86"}, []),
        ({"sms": (86, 89)}, {"sm": "86"}, []),
        ({"version_compatible": True}, {"tensorrt": "10.15.0"}, []),
        ({"version_compatible": True}, {"tensorrt": "10.17.0"}, ["plan-version"]),
    ],
)
def test_the_record_knows_what_else_a_plan_was_built_for(record, requires, found):
    made = make_record(**record) if record is not None else None
    assert [misfit.part for misfit in find_misfits(make_plan(**requires), GPU, made)] == found


def test_a_graph_alone_needs_a_package_and_a_gpu():
    graph = make_plan({}, sm=None, tensorrt=None)
    assert parts(graph, GPU) == []
    assert parts(graph, MACHINE) == ["tensorrt", "gpu"]


@pytest.mark.parametrize(
    ("oldest", "found"),
    [(">=10.16", []), (">=10.16.2", ["tensorrt-version"]), (">=11", ["tensorrt-version"]), (None, []), ("²", [])],
)
def test_a_graph_alone_needs_the_tensorrt_of_its_profile(oldest, found):
    graph = make_plan({}, sm=None, tensorrt=None)
    graph = replace(graph, device={**graph.device, "tensorrt": oldest})
    assert parts(graph, GPU) == found
    assert runs(graph, GPU) == (not found)


def test_a_plan_needs_its_own_version_and_not_that_of_its_profile():
    planned = make_plan({})
    assert parts(replace(planned, device={**planned.device, "tensorrt": ">=11"}), GPU) == []


def test_a_plan_that_can_be_built_anew_runs():
    other = replace(GPU, tensorrt={"tensorrt": "10.3.0"}, sm=87)
    assert parts(make_plan({}), other) == ["plan-version", "plan-gpu"]
    assert runs(make_plan({}), other)
    assert not runs(make_plan(None), other)
    assert not runs(make_plan({}), replace(other, sm=None))


def runs(variant, machine):
    return can_run(variant, find_misfits(variant, machine))


def test_this_machine_is_looked_at():
    machine = detect_machine(gpu=False)
    assert (machine.arch, machine.level) == (detect().arch, detect().level)
    assert machine.onnxruntime
    assert machine.memory_bytes > 1 << 20


def test_a_container_has_less_memory_than_its_machine(tmp_path):
    limit = tmp_path / "memory.max"
    free = find_memory(limit)
    limit.write_text("max\n")
    assert find_memory(limit) == free
    limit.write_text("4096\n")
    assert find_memory(limit) == 4096


@pytest.mark.parametrize("name", list_profiles())
def test_every_profile_is_a_machine(name):
    profile = read_profile(name)
    machine = describe_device(profile)
    assert (machine.name, machine.arch) == (name, profile.arch)
    variant = make(arch=profile.arch, isa=profile.isa, memory_bytes=0)
    assert find_misfits(variant, machine) == ()
