"""`stepdown pack` as a user calls it: what is in the bundle, what is refused, and that nothing is left half-written."""

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from runtimes.bundle.archive import open_archive
from runtimes.isa import normalise_arch
from tests.unit.exporter.packing.test_elf import AARCH64, write_library
from tests.unit.exporter.packing.test_oci import read_layout
from tests.unit.exporter.packing.tiny_export import add_plan, change_entry, change_manifest, write_export

ROOT = Path(__file__).parents[2]
CAMERA = 'summary = "a camera"\narch = "x86_64"\nisa = "avx2"\nruntimes = ["onnxruntime"]\nonnxruntime = ">=1.24"\n'


@pytest.fixture
def export(tmp_path):
    return write_export(tmp_path / "films")


@pytest.fixture
def bundle(tmp_path):
    return tmp_path / "films.stepdown.tar.gz"


@pytest.fixture
def key(tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    path = tmp_path / "key.pem"
    path.write_bytes(
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def read_bundle(path):
    """Return the description and every blob by its sha256."""
    with open_archive(path) as archive:
        return archive.description, {sha256: b"".join(pieces) for sha256, pieces in archive.blobs()}


def list_leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_bundle_holds_model_tokenizer_probe_and_where_it_all_comes_from(stepdown, export, bundle):
    (export / "LICENSE").write_text("do what you like", encoding="utf-8")
    result = stepdown("pack", export, "-o", bundle, "--licence", "Apache-2.0", "--version", 3, "--json")
    assert result.code == 0, result.err
    told = result.json()
    assert told["sha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert told["bytes"] == bundle.stat().st_size
    assert (told["name"], told["version"], told["signed"], told["policy"]) == ("films", 3, False, ["cpu"])
    description, blobs = read_bundle(bundle)
    assert set(description.files) == {"LICENSE", "config.json", "tokenizer.json", "sbom.cdx.json"}
    assert (description.labels, description.max_length) == (("negative", "positive"), 64)
    (variant,) = description.variants
    assert set(variant.files) == {"model.onnx", "probe/inputs.safetensors", "probe/outputs.safetensors"}
    assert blobs[variant.files["model.onnx"]] == (export / "onnxruntime" / "model.onnx").read_bytes()
    assert description.provenance["source"]["reference"] == "films"
    assert description.provenance["exports"][0]["recipe"]["calibration_data"] == "texts.txt"
    assert description.provenance["exports"][0]["machine"]["load"] is None
    for blob in (description.to_bytes(), *blobs.values()):
        assert b"/home/" not in blob


def test_the_probe_is_what_the_model_answers(stepdown, export, bundle):
    assert stepdown("pack", export, "-o", bundle).code == 0
    description, blobs = read_bundle(bundle)
    probe = description.variants[0].probe
    feeds, outputs = (load(blobs[description.variants[0].files[path]]) for path in (probe.inputs, probe.outputs))
    assert feeds["input_ids"].shape[0] == 3
    # The classifier counts "good" and "bad": the last text is "Good film.", and the words are lower case.
    assert outputs["logits"].shape == (3, 2)
    assert np.isfinite(outputs["logits"]).all()
    assert probe.tolerance.reason
    assert probe.made_with["threads"] == 1


def test_one_export_for_several_devices_holds_equal_files_once(stepdown, export, bundle):
    devices = ("--device", "x86-64-avx2", "--device", "x86-64-vnni", "--device", "arm64-neon")
    assert stepdown("pack", export, "-o", bundle, *devices).code == 0
    description, blobs = read_bundle(bundle)
    assert [variant.requires.isa for variant in description.variants] == ["neon", "vnni", "avx2"]
    assert len({variant.files["model.onnx"] for variant in description.variants}) == 1
    # Model, two files of the probe, configuration, tokenizer, bill of materials.
    assert len(blobs) == 6


def test_exports_that_differ_are_variants_of_one_bundle(stepdown, tmp_path, bundle):
    folders = [write_export(tmp_path / "a"), write_export(tmp_path / "b", isa="vnni", weight=np.float32(1.01))]
    for number, folder in enumerate(folders):
        (folder / "report.json").write_text(json.dumps({"run": number}), encoding="utf-8")
        change_manifest(folder)
    result = stepdown("pack", *folders, "-o", bundle, "--device", "x86-64-avx2", "--device", "x86-64-vnni")
    assert result.code == 0, result.err
    description, blobs = read_bundle(bundle)
    assert [variant.name for variant in description.variants] == ["x86-64-vnni", "x86-64-avx2"]
    assert len({variant.files["model.onnx"] for variant in description.variants}) == 2
    reports = {path: json.loads(blobs[sha256]) for path, sha256 in description.files.items() if "report" in path}
    assert reports == {
        "exports/x86-64-avx2/report.json": {"run": 0},
        "exports/x86-64-vnni/report.json": {"run": 1},
    }
    assert [told["variants"] for told in description.provenance["exports"]] == [["x86-64-vnni"], ["x86-64-avx2"]]


def test_exports_of_different_models_are_refused(stepdown, tmp_path, bundle):
    one, two = write_export(tmp_path / "a"), write_export(tmp_path / "b")
    change_manifest(two, source={"task": "feature-extraction"})
    result = stepdown("pack", one, two, "-o", bundle, "--device", "x86-64", "--device", "x86-64-vnni")
    assert result.code == 2
    assert "another task" in result.err
    change_manifest(two, source={"task": "text-classification"})
    (two / "tokenizer.json").write_text("{}", encoding="utf-8")
    change_manifest(two)
    result = stepdown("pack", one, two, "-o", bundle, "--device", "x86-64", "--device", "x86-64-vnni")
    assert "another tokenizer.json" in result.err
    assert not bundle.exists()


def test_exports_that_cut_texts_elsewhere_are_refused(stepdown, tmp_path, bundle):
    one, two = write_export(tmp_path / "a"), write_export(tmp_path / "b", max_length=32)
    words = ("pack", one, two, "-o", bundle, "--device", "x86-64", "--device", "x86-64-vnni")
    result = stepdown(*words)
    assert result.code == 2
    assert "judged at 32 tokens" in result.err
    assert str(two) in result.err
    assert "--max-length 32" in result.err
    assert not bundle.exists()
    result = stepdown(*words, "--max-length", 32)
    assert result.code == 0, result.err
    assert read_bundle(bundle)[0].max_length == 32


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("memory_bytes = 1_000_000", "it takes about 64,001,"),
        ("bundle_bytes = 1_000", "the profile allows 1,000"),
    ],
)
def test_what_a_profile_has_no_room_for_is_refused(stepdown, export, bundle, tmp_path, limit, said):
    (tmp_path / "camera.toml").write_text(CAMERA + limit, encoding="utf-8")
    result = stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml")
    assert result.code == 8
    assert said in result.err
    assert "camera" in result.err
    assert not bundle.exists()
    assert list_leftovers(tmp_path) == []


def test_an_open_bound_of_a_measurement_is_null_in_the_report(stepdown, export, bundle):
    (export / "report.json").write_text('{"high": Infinity, "node": "/layer/MatMul"}', encoding="utf-8")
    change_manifest(export)
    assert stepdown("pack", export, "-o", bundle).code == 0
    description, blobs = read_bundle(bundle)
    assert json.loads(blobs[description.files["report.json"]]) == {"high": None, "node": "/layer/MatMul"}


@pytest.mark.parametrize("name", ["report.json", "weights.bin"])
def test_what_no_device_would_take_is_not_written(stepdown, export, bundle, name, tmp_path):
    (export / name).write_bytes(b"\x80\x04K\x01.")
    change_manifest(export)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8, result.err
    assert name in result.err
    assert not bundle.exists()
    assert list_leftovers(tmp_path) == []


def test_an_operator_that_runs_other_code_is_refused(stepdown, export, bundle):
    import onnx

    path = export / "onnxruntime" / "model.onnx"
    model = onnx.load(path)
    model.graph.node[1].op_type, model.graph.node[1].domain = "PyOp", "ai.onnx.contrib"
    onnx.save(model, path)
    change_manifest(export)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8
    assert "ai.onnx.contrib" in result.err


def test_an_oci_layout_is_written_whole(stepdown, export, tmp_path):
    layout = tmp_path / "layout"
    result = stepdown("pack", export, "-o", layout, "--format", "oci", "--version", 3, "--json")
    assert result.code == 0, result.err
    assert result.json()["sha256"] == hashlib.sha256((layout / "index.json").read_bytes()).hexdigest()
    layers = read_layout(layout)
    assert {"bundle.json"} < set(layers)
    assert stepdown("pack", export, "-o", layout, "--format", "oci").code == 2
    assert list_leftovers(tmp_path) == []


def test_the_archive_of_a_layout_is_the_same_to_the_byte(stepdown, export, bundle, key, tmp_path):
    words = ("--version", 3, "--sign", key)
    assert stepdown("pack", export, "-o", bundle, *words).code == 0
    assert stepdown("pack", export, "-o", tmp_path / "layout", "--format", "oci", *words).code == 0
    again = tmp_path / "again.stepdown.tar.gz"
    result = stepdown("pack", tmp_path / "layout", "-o", again, "--json")
    assert result.code == 0, result.err
    assert again.read_bytes() == bundle.read_bytes()
    assert result.json()["sha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert stepdown("pack", tmp_path / "layout", "-o", again).code == 2


@pytest.mark.parametrize("words", [("--version", 4), ("--device", "x86-64"), ("--max-length", 8), ("--format", "oci")])
def test_what_a_layout_holds_is_not_packed_otherwise(stepdown, export, tmp_path, words):
    layout = tmp_path / "layout"
    assert stepdown("pack", export, "-o", layout, "--format", "oci").code == 0
    result = stepdown("pack", layout, "-o", tmp_path / "out.tar.gz", *words)
    assert result.code == 2
    assert words[0] in result.err
    result = stepdown("pack", layout, export, "-o", tmp_path / "out.tar.gz")
    assert result.code == 2
    assert "packed already" in result.err


def test_a_model_whose_answers_would_differ_there_is_refused(stepdown, tmp_path, bundle):
    export = write_export(tmp_path / "films", isa="vnni")
    result = stepdown("pack", export, "-o", bundle, "--device", "x86-64-avx2")
    assert result.code == 8
    assert "made for vnni" in result.err
    assert "--for-isa avx2" in result.err
    assert stepdown("pack", export, "-o", bundle, "--device", "arm64-neon").code == 0


def test_a_device_with_an_older_runtime_is_refused(stepdown, export, bundle, tmp_path):
    (tmp_path / "camera.toml").write_text(CAMERA.replace("1.24", "1.20"), encoding="utf-8")
    result = stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml")
    assert result.code == 8
    assert "needs ONNX Runtime 1.24" in result.err


@pytest.mark.parametrize(
    "changes",
    [{"isa": None}, {"isa": "mmx"}, {"requires": {}}, {"requires": {"onnxruntime": ">=new"}}, {"provider": None}],
)
def test_a_manifest_that_does_not_hold_together_is_refused(stepdown, export, bundle, changes):
    change_entry(export, **changes)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8
    assert "artifacts.onnxruntime" in result.err


def test_a_file_that_is_not_the_one_that_was_exported_is_refused(stepdown, export, bundle):
    (export / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert stepdown("pack", export, "-o", bundle).code == 8
    (export / "manifest.json").unlink()
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 2
    assert "not an exported directory" in result.err


def test_a_file_that_nobody_names_stays_out_and_is_said(stepdown, export, bundle):
    (export / "notes-to-self.txt").write_text("secret", encoding="utf-8")
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 0
    assert "notes-to-self.txt is left out" in result.err
    assert "notes-to-self.txt" not in read_bundle(bundle)[0].files


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "toaster"), "no device profile"),
        (("--name", "../films"), "cannot be a folder"),
        (("--licence", "as is"), "no SPDX"),
        (("--policy", "plan,hope"), "'hope' is none of"),
        (("--policy", "plan"), "the bundle has nothing for 'plan'"),
        (("--policy", "cpu,cpu"), "each step once"),
        (("--detached",), "needs a key"),
        (("--sign", "no-such.pem"), "no-such.pem"),
        (("--kernels", "no-such.so"), "no-such.so"),
        (("--version", "0"), "at least 1"),
        (("--format", "zip"), "zip"),
    ],
)
def test_a_wrong_option_is_refused_and_nothing_is_written(stepdown, export, bundle, words, said):
    result = stepdown("pack", export, "-o", bundle, *words)
    assert result.code == 2, result.err
    assert said in result.err
    assert not bundle.exists()


def test_an_output_in_no_folder_is_refused_before_any_work(stepdown, export, tmp_path):
    result = stepdown("pack", export, "-o", tmp_path / "no" / "films.stepdown.tar.gz")
    assert result.code == 2
    assert "no such folder" in result.err


def test_what_is_packed_is_verified_and_runs(stepdown, export, bundle):
    if normalise_arch(platform.machine()) != "x86_64":
        pytest.skip("the export is of an x86-64 machine")
    assert stepdown("pack", export, "-o", bundle, "--version", 2).code == 0
    verified = stepdown("verify", bundle)
    assert verified.code == 0, verified.err
    assert "unsigned" in verified.out + verified.err
    result = stepdown("run", bundle, "--text", "good film", "--json")
    assert result.code == 0, result.err
    assert result.json()["answers"][0]["value"]["label"] == "positive"


def test_an_output_that_exists_is_kept_without_force(stepdown, export, bundle):
    bundle.write_bytes(b"the old one")
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 2
    assert "--force" in result.err
    assert bundle.read_bytes() == b"the old one"
    assert stepdown("pack", export, "-o", bundle, "--force").code == 0
    assert read_bundle(bundle)[0].name == "films"


def test_a_bundle_is_signed_inside_or_beside(stepdown, export, bundle, key, tmp_path):
    result = stepdown("pack", export, "-o", bundle, "--sign", key)
    assert result.code == 0, result.err
    assert "unsigned" not in result.err
    with open_archive(bundle) as archive:
        inside, covered = archive.signatures, archive.description_bytes
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    assert not beside.exists()
    assert stepdown("pack", export, "-o", bundle, "--sign", key, "--detached", "--force").code == 0
    with open_archive(bundle) as archive:
        assert archive.signatures is None
        assert archive.description_bytes == covered
    assert beside.read_bytes() == inside


def test_a_signature_of_an_older_bundle_is_not_left_beside_a_new_one(stepdown, export, bundle, key, tmp_path):
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    assert stepdown("pack", export, "-o", bundle, "--sign", key, "--detached").code == 0
    bundle.unlink()
    assert stepdown("pack", export, "-o", bundle).code == 2
    assert beside.exists()
    assert stepdown("pack", export, "-o", bundle, "--force").code == 0
    assert not beside.exists()


def test_a_signature_that_cannot_be_written_leaves_what_was_there(stepdown, export, bundle, key, tmp_path):
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    words = ("pack", export, "-o", bundle, "--sign", key, "--detached", "--force")
    assert stepdown(*words).code == 0
    before = bundle.read_bytes()
    beside.unlink()
    beside.mkdir()
    result = stepdown(*words, "--version", 7)
    assert result.code == 2
    assert "in the way" in result.err
    assert "to fix:" in result.err
    assert bundle.read_bytes() == before
    assert beside.is_dir()


@pytest.mark.parametrize("failing", ["write_bytes", "Path.replace"])
def test_a_disk_without_room_leaves_a_bundle_with_its_signature(
    stepdown, export, bundle, key, tmp_path, monkeypatch, failing
):
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    words = ("pack", export, "-o", bundle, "--sign", key, "--detached", "--force")
    assert stepdown(*words).code == 0
    before = bundle.read_bytes(), beside.read_bytes()
    replace = Path.replace

    def fail(path, *rest):
        if failing == "write_bytes" or rest == (bundle,):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, *rest)

    monkeypatch.setattr(f"exporter.packing.write.{failing}", fail)
    assert stepdown(*words, "--version", 7).code == 2
    assert (bundle.read_bytes(), beside.read_bytes()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"films", "key.pem", bundle.name, beside.name}


class Killed(BaseException):
    """What no handler of ours takes for an error."""


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_kill_between_two_renames_leaves_no_signature_of_another_archive(
    stepdown, export, bundle, key, tmp_path, monkeypatch, last
):
    beside = tmp_path / "films.stepdown.tar.gz.sig"
    words = ("pack", export, "-o", bundle, "--sign", key, "--detached", "--force")
    assert stepdown(*words).code == 0
    before = bundle.read_bytes(), beside.read_bytes()
    replace, moves = Path.replace, []

    def die(path, target):
        if target in {bundle, beside} or path in {bundle, beside}:
            moves.append(target)
            if len(moves) == last:
                raise Killed
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(Killed):
        stepdown(*words, "--version", 7)
    assert (bundle.read_bytes() == before[0]) == (last < 3)
    assert beside.exists() == (last == 1)


def test_a_folder_that_is_called_like_a_device_names_no_bundle(stepdown, tmp_path, bundle):
    export = write_export(tmp_path / "export")
    change_manifest(export, recipe={"output": "out/Aux.v2"})
    assert stepdown("pack", export, "-o", bundle).code == 0
    assert read_bundle(bundle)[0].name == "model"


def test_an_unsigned_bundle_is_said_to_be_unsigned(stepdown, export, bundle):
    assert "unsigned" in stepdown("pack", export, "-o", bundle).err


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


def test_sixteen_bit_floats_go_where_the_profile_allows_them(stepdown, tmp_path, bundle):
    import onnx
    from onnx import numpy_helper

    export = write_export(tmp_path / "films")
    path = export / "onnxruntime" / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "unused"))
    onnx.save(model, path)
    change_manifest(export)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8
    assert "16-bit floats" in result.err
    (tmp_path / "camera.toml").write_text(CAMERA + "float16 = true", encoding="utf-8")
    assert stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml").code == 0


def write_sparse_export(folder):
    """Write an export whose model says that it has an operator of the kernels. It is not run."""
    import onnx

    write_export(folder)
    path = folder / "onnxruntime" / "model.onnx"
    model = onnx.load(path)
    model.graph.node[1].op_type, model.graph.node[1].domain = "SparseLinear", "ai.stepdown"
    model.opset_import.append(onnx.helper.make_opsetid("ai.stepdown", 1))
    onnx.save(model, path)
    change_entry(folder, sparse_kernels={"version": "0.1.0", "sha256": "d" * 64})
    return folder


def test_kernels_for_another_architecture_must_be_given(stepdown, tmp_path, bundle):
    export = write_sparse_export(tmp_path / "films")
    result = stepdown("pack", export, "-o", bundle, "--device", "arm64-neon")
    assert result.code in (2, 3)  # 3 where this installation has none either
    assert "--kernels" in result.err
    (tmp_path / "camera.toml").write_text(CAMERA, encoding="utf-8")
    library = write_library(tmp_path / "libstepdown_sparse.so", AARCH64)
    result = stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml", "--kernels", library)
    assert result.code in (3, 8)


def test_kernels_that_no_variant_needs_stay_out_and_that_is_said(stepdown, export, bundle, tmp_path):
    library = write_library(tmp_path / "libstepdown_sparse.so", AARCH64)
    result = stepdown("pack", export, "-o", bundle, "--kernels", library)
    assert result.code == 0
    assert "libstepdown_sparse.so is left out" in result.err


def test_a_profile_without_operators_of_our_own_refuses_them(stepdown, tmp_path, bundle):
    export = write_sparse_export(tmp_path / "films")
    library = write_library(tmp_path / "libstepdown_sparse.so", AARCH64)
    (tmp_path / "camera.toml").write_text(CAMERA.replace("x86_64", "aarch64").replace("avx2", "neon"), encoding="utf-8")
    result = stepdown("pack", export, "-o", bundle, "--device", tmp_path / "camera.toml", "--kernels", library)
    assert result.code == 8
    assert "allows no operators but the runtime's own" in result.err


def test_sparse_layers_without_a_word_on_their_kernels_are_refused(stepdown, tmp_path, bundle):
    export = write_sparse_export(tmp_path / "films")
    change_entry(export, sparse_kernels=None)
    result = stepdown("pack", export, "-o", bundle)
    assert result.code == 8
    assert "no kernels are named" in result.err


VARIED = {
    "as it is": {},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "another locale": {"LC_ALL": "tr_TR.UTF-8"},
    "another hash seed": {"PYTHONHASHSEED": "12345"},
    "another home and user": {"HOME": "/nonexistent", "USER": "somebody", "LOGNAME": "somebody"},
}


def test_the_same_export_gives_the_same_bytes_wherever_it_lies_and_whoever_packs_it(tmp_path, key):
    """In processes of their own, from folders of other names, whose files have other times and modes.

    Where the clock can be set, it says something else each time.
    """
    faketime = shutil.which("faketime")
    found = set()
    for number, environment in enumerate(VARIED.values()):
        folder = write_export(tmp_path / f"place-{number}" / f"export {number}")
        names = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=number % 2 == 1)
        for at, path in enumerate(names):
            path.chmod(0o600 if number % 2 else 0o644)
            os.utime(path, (at * 1000 + number, at * 1000 + number))
        output = folder.parent / f"{number}.tar.gz"
        devices = ["--device", "x86-64-avx2", "--device", "x86-64-vnni"]
        command = [sys.executable, "-m", "exporter.cli", "pack", str(folder), "-o", str(output), "--sign", str(key)]
        clock = [faketime, f"{2001 + 7 * number}-12-31 23:59:58"] if faketime else []
        done = subprocess.run(
            [*clock, *command, *devices],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=folder.parent,
            umask=0o077 if number % 2 else 0o022,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.add(hashlib.sha256(output.read_bytes()).hexdigest())
        assert output.stat().st_mode & 0o777 == 0o644
    assert len(found) == 1
