"""Packing plans, and graphs to build them from, for devices with a GPU."""

import pytest
from safetensors.numpy import load

from tests.cli.pack.packed import read_bundle
from tests.unit.exporter.packing.tiny_export import add_plan, change_manifest


def test_a_plan_for_the_device_goes_in_with_what_it_is_built_from(stepdown, export, bundle):
    add_plan(export)
    result = stepdown("pack", export, "-o", bundle, "--device", "rtx-40")
    assert result.code == 0, result.err
    description, _ = read_bundle(bundle)
    gpu, cpu = description.variants
    assert (gpu.name, gpu.runtime, gpu.model) == ("rtx-40", "tensorrt", "model.sm89.plan")
    assert {"model.sm89.plan.json", "model.onnx"} < set(gpu.files)
    assert (gpu.requires.sm, gpu.requires.tensorrt, gpu.requires.onnxruntime) == ("89", "1.7.1.116", None)
    assert gpu.rebuild.graph == "model.onnx"
    assert gpu.rebuild.options["expected"]["int8"] == ["mm"]
    assert gpu.probe.tolerance.reason.startswith("FP16 and int8 on a GPU")
    assert (cpu.name, cpu.runtime) == ("rtx-40-cpu", "onnxruntime")
    assert cpu.files["model.onnx"] == gpu.files["model.onnx"]
    assert description.policy == ("plan", "rebuild", "cpu")


@pytest.mark.parametrize(
    ("record", "why"),
    [({}, "the plan is of tensorrt-rtx"), ({"library": "tensorrt", "sms": (86,)}, "the device is sm87")],
)
def test_a_plan_for_another_device_stays_out_and_is_said(stepdown, export, bundle, record, why):
    add_plan(export, **record)
    result = stepdown("pack", export, "-o", bundle, "--device", "jetson-orin")
    assert result.code == 0, result.err
    assert why in result.err
    description, _ = read_bundle(bundle)
    gpu = description.variants[0]
    assert (gpu.name, gpu.model, gpu.requires.tensorrt) == ("jetson-orin", "model.onnx", None)
    assert gpu.rebuild.options["library"] == "tensorrt"
    assert description.policy == ("rebuild", "cpu")


def test_a_graph_alone_is_built_on_the_device_and_a_policy_may_exclude_the_cpu(stepdown, export, bundle):
    add_plan(export, graph_only=True)
    result = stepdown("pack", export, "-o", bundle, "--device", "jetson-orin", "--policy", "rebuild")
    assert result.code == 0, result.err
    description, _ = read_bundle(bundle)
    assert description.policy == ("rebuild",)
    assert description.variants[0].rebuild.options["profiles"] == [{"min": [1, 1], "opt": [8, 128], "max": [32, 512]}]


def test_a_probe_keeps_to_the_shapes_that_the_plan_takes(stepdown, export, bundle):
    from runtimes.ort import describe_onnx
    from runtimes.trt.profiles import parse_profile, resolve_profiles

    inputs = describe_onnx(export / "onnxruntime" / "model.onnx").inputs
    add_plan(export, profiles=resolve_profiles((parse_profile("min=4x32,opt=8x64,max=8x64"),), inputs))
    assert stepdown("pack", export, "-o", bundle, "--device", "rtx-40").code == 0
    description, blobs = read_bundle(bundle)
    gpu, cpu = (load(blobs[variant.files["probe/inputs.safetensors"]]) for variant in description.variants)
    assert gpu["input_ids"].shape == (4, 32)
    assert cpu["input_ids"].shape[0] == 3


def test_a_damaged_plan_is_refused(stepdown, export, bundle):
    add_plan(export)
    (export / "tensorrt" / "model.sm89.plan").write_bytes(b"another")
    change_manifest(export)
    result = stepdown("pack", export, "-o", bundle, "--device", "rtx-40")
    assert result.code == 8
    assert "not the one its record describes" in result.err


def test_an_artifact_that_no_device_asked_for_is_said_to_be_left_out(stepdown, export, bundle):
    add_plan(export)
    result = stepdown("pack", export, "-o", bundle, "--device", "x86-64")
    assert "its model for tensorrt is left out" in result.err
