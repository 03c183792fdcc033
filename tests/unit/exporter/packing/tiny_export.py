"""Small exported directories for packing: the classifier of tests/cli, as it is for several kinds of device."""

import shutil
from dataclasses import replace

import onnx
from onnx import numpy_helper

from runtimes.artifact import hash_file, read_manifest, record_files, write_manifest
from runtimes.ort import describe_onnx
from runtimes.trt.profiles import parse_profile, resolve_profiles
from runtimes.trt.record import write_record
from tests.cli.tiny_artifact import write_artifact
from tests.unit.runtimes.trt.plans import make_record


def write_export(folder, isa="avx2", weight=None, **source):
    """Write an exported classifier; with ``weight`` its first weight is multiplied by it."""
    write_artifact(folder)
    if weight is not None:
        path = folder / "onnxruntime" / "model.onnx"
        model = onnx.load(path)
        scaled = numpy_helper.to_array(model.graph.initializer[1]) * weight
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(scaled, model.graph.initializer[1].name))
        onnx.save(model, path)
    change_entry(folder, isa=isa, exact_on_any_cpu=isa == "avx2")
    change_manifest(
        folder,
        source={
            "task": "text-classification",
            "reference": "/home/somebody/models/films",
            "sha256": "c" * 64,
            **source,
        },
        recipe={"output": "films", "max_length": 64, "calibration_data": "/data/texts.txt"},
        machine={"arch": "x86_64", "cpu": "some", "load": float("nan")},
    )
    return folder


def add_plan(folder, graph_only=False, **record):
    """Add an artifact for TensorRT: the same graph, and bytes that stand for its plan."""
    target = folder / "tensorrt"
    target.mkdir()
    shutil.copyfile(folder / "onnxruntime" / "model.onnx", target / "model.onnx")
    described = describe_onnx(target / "model.onnx")
    path = target / "model.onnx"
    if not graph_only:
        path = target / "model.sm89.plan"
        path.write_bytes(b"a plan")
        profiles = resolve_profiles((parse_profile("min=1x1,opt=2x8,max=8x64"),), described.inputs)
        facts = {"inputs": described.inputs, "outputs": described.outputs, "profiles": profiles, **record}
        write_record(path, make_record(plan_sha256=hash_file(path), **facts))
    artifacts = dict(read_manifest(folder).artifacts)
    entry = {"path": path.relative_to(folder).as_posix(), "kind": "onnx" if graph_only else "plan", "requires": {}}
    change_manifest(folder, artifacts={**artifacts, "tensorrt": entry})
    return folder


def change_entry(folder, **changes):
    """Let the manifest say other things of the model for ONNX Runtime; None takes a field away."""
    artifacts = dict(read_manifest(folder).artifacts)
    entry = {**artifacts["onnxruntime"], **changes}
    artifacts["onnxruntime"] = {key: value for key, value in entry.items() if value is not None}
    change_manifest(folder, artifacts=artifacts)


def change_manifest(folder, **changes):
    """Write the manifest anew, of the files that are there."""
    write_manifest(folder, replace(read_manifest(folder), files=record_files(folder), **changes))
