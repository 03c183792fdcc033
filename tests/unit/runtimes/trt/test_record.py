"""The record beside a plan: written, read, believed only where it fits."""

import hashlib
import json
from dataclasses import replace

import pytest

from runtimes.errors import CorruptArtifact
from runtimes.trt.fit import describe_gpus, require_gpu, require_version, runs_on
from runtimes.trt.library import Library
from runtimes.trt.record import describe_plan, read_record, record_path, verify_plan, why_rebuild, write_record
from tests.unit.runtimes.trt.plans import make_record


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "model.plan"
    path.write_bytes(b"a plan")
    write_record(path, make_record(plan_sha256=hashlib.sha256(b"a plan").hexdigest()))
    return path


def test_a_record_reads_back_as_written(plan):
    record = verify_plan(plan)
    assert record == make_record(plan_sha256=record.plan_sha256)
    assert [path.name for path in describe_plan(plan, record).files] == ["model.plan", "model.plan.json"]


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "changed", "no record", "record cut", "other schema", "part gone"]
)
def test_a_damaged_plan_or_record_is_refused(plan, damage):
    beside = record_path(plan)
    facts = json.loads(beside.read_text())
    match damage:
        case "missing":
            plan.unlink()
        case "empty":
            plan.write_bytes(b"")
        case "changed":
            plan.write_bytes(b"another plan")
        case "no record":
            beside.unlink()
        case "record cut":
            beside.write_text(beside.read_text()[:40])
        case "other schema":
            beside.write_text(json.dumps({**facts, "schema": 99}))
        case "part gone":
            beside.write_text(json.dumps({key: value for key, value in facts.items() if key != "sms"}))
    with pytest.raises(CorruptArtifact, match="build"):
        verify_plan(plan)


def test_when_a_plan_must_be_built_again(plan):
    same = replace(read_record(plan), plan_sha256="")
    assert why_rebuild(plan, same) is None
    assert why_rebuild(plan, replace(same, model_sha256="c" * 64)) == "changed since: model sha256"
    assert why_rebuild(plan, replace(same, version="1.8.0.1", sms=(89,))) == "changed since: version, sms"
    plan.write_bytes(b"broken")
    assert "not the one" in why_rebuild(plan, same)


def library(version):
    return Library(name="tensorrt-rtx", module=None, version=version)


def test_another_version_is_refused_with_both_ways_out():
    require_version(make_record(), library("1.7.1.200"), where="p")
    with pytest.raises(
        CorruptArtifact, match=r"1\.7\.1\.116, this is 1\.8\.0\.5(.|\n)*tensorrt-rtx-cu13==1\.7\.1\.116"
    ):
        require_version(make_record(), library("1.8.0.5"), where="p")


def test_a_version_compatible_plan_runs_on_later_versions_only():
    record = make_record(library="tensorrt", version="10.13.0.35", version_compatible=True)
    require_version(record, library("11.1.0.106"), where="p")
    with pytest.raises(CorruptArtifact):
        require_version(record, library("10.12.0.1"), where="p")


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 5},
        {"sms": ["x"]},
        {"sms": 80},
        {"hardware": "any"},
        {"repeats": "yes"},
        {"settings": {"workspace_bytes": "1"}},
        {"inputs": [{"name": "x", "dtype": 3, "shape": [1]}]},
        {"inputs": [{"name": "x", "dtype": "float32", "shape": [1.5]}]},
        {"profiles": [{"x": {"min": ["1"], "opt": [1], "max": [1]}}]},
        {"expected": {"int8": "first", "sparse": []}},
        {"expected": []},
    ],
    ids=str,
)
def test_a_record_with_values_of_other_types_is_refused(plan, wrong):
    beside = record_path(plan)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **wrong}))
    with pytest.raises(CorruptArtifact, match="record"):
        verify_plan(plan)


def test_a_record_that_is_nested_too_deep_is_refused(plan):
    record_path(plan).write_text("[" * 100_000)
    with pytest.raises(CorruptArtifact, match="record cannot be read"):
        verify_plan(plan)


@pytest.mark.parametrize(
    ("changes", "gpus"),
    [
        ({"sms": (80, 89)}, "8.0, 8.9"),
        ({}, "8.0, 8.9, 12.0 and later 12.x"),
        ({"library": "tensorrt", "sms": (120,)}, "12.0"),
        ({"library": "tensorrt", "sms": (89,), "hardware": "ampere-plus"}, "8.0 and later"),
    ],
)
def test_where_a_plan_runs_in_words(changes, gpus):
    assert describe_gpus(make_record(**changes)) == f"NVIDIA GPUs of compute capability {gpus}"


@pytest.mark.parametrize(
    ("changes", "sm", "runs"),
    [
        ({}, 89, True),
        ({}, 86, False),
        ({}, 121, True),
        ({}, 90, False),
        ({"library": "tensorrt", "sms": (86,)}, 89, False),
        ({"library": "tensorrt", "sms": (86,), "hardware": "ampere-plus"}, 89, True),
        ({"library": "tensorrt", "sms": (86,), "hardware": "ampere-plus"}, 75, False),
    ],
)
def test_which_gpus_a_plan_runs_on(changes, sm, runs):
    record = make_record(**changes)
    assert runs_on(record.library, record.sms, record.hardware, sm) is runs
    if not runs:
        with pytest.raises(CorruptArtifact, match=f"sm{sm}"):
            require_gpu(record, sm, where="p")
