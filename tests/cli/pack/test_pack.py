"""`stepdown pack` as a user calls it: what is in the bundle, what is refused, and that nothing is left half-written."""

import hashlib
import json
import platform

import numpy as np
import pytest
from safetensors.numpy import load

from runtimes.isa import normalise_arch
from tests.cli.pack.packed import CAMERA, list_leftovers, read_bundle
from tests.unit.exporter.packing.test_oci import read_layout
from tests.unit.exporter.packing.tiny_export import change_entry, change_manifest, write_export


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


def test_a_folder_that_is_called_like_a_device_names_no_bundle(stepdown, tmp_path, bundle):
    export = write_export(tmp_path / "export")
    change_manifest(export, recipe={"output": "out/Aux.v2"})
    assert stepdown("pack", export, "-o", bundle).code == 0
    assert read_bundle(bundle)[0].name == "model"
