"""The whole verdict: a good bundle passes, each failure is named with what to do, and nothing runs too early."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from runtimes.artifact import hash_file
from runtimes.bundle.profiles import make_profile
from runtimes.bundle.signature import read_public_key, sign
from runtimes.bundle.trust import Trust
from runtimes.bundle.verify import VerifyOptions, verify_bundle
from runtimes.errors import UsageError
from runtimes.isa import detect, named
from tests.unit.runtimes.bundle.real_bundle import describe, make_model, pack, write_home
from tests.unit.runtimes.bundle.test_signature import write_keys
from tests.unit.runtimes.bundle.tiny_bundle import make_gzip, make_tar


@pytest.fixture
def home(tmp_path):
    write_home(tmp_path / "home")
    return tmp_path / "home"


def verify(home, tmp_path, *, description=None, signatures=None, **options):
    return verify_bundle(pack(home, tmp_path / "b", description, signatures), VerifyOptions(**options))


def stages(report):
    return [(failure.stage, failure.where) for failure in report.failures]


def test_a_good_bundle_passes(home, tmp_path):
    report = verify(home, tmp_path)
    assert (report.verdict, report.failures, report.machine) == ("pass", (), "this machine")
    assert (report.name, report.version, len(report.id)) == ("real", 1, 16)
    assert report.signature.state == "unsigned"
    (variant,) = report.variants
    assert (variant.name, variant.fits, variant.misfits) == ("here", True, ())
    assert "agrees" in variant.probe


def test_an_unpacked_bundle_is_verified_where_it_lies(home):
    (home / "bundle.json").write_bytes(describe(home).to_bytes())
    assert verify_bundle(home).verdict == "pass"
    (home / "shared" / "LICENSE").write_text("Do what they like\n")
    (failure,) = verify_bundle(home).failures
    assert failure.stage == "structure"
    assert "LICENSE" in failure.where


def test_damage_is_a_failure_of_structure(home, tmp_path):
    data = bytearray(pack(home, tmp_path / "b").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b").write_bytes(data)
    report = verify_bundle(tmp_path / "b")
    assert [stage for stage, _ in stages(report)] == ["structure"]
    assert report.failures[0].cure


def test_another_hash_is_told_with_both(home, tmp_path):
    description, wrong = describe(home), "0" * 64
    contents = {hash_file(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    sha256 = description.files["LICENSE"]
    contents[wrong] = contents.pop(sha256)
    description = replace(
        description,
        blobs={name: len(data) for name, data in contents.items()},
        files={**description.files, "LICENSE": wrong},
    )
    members = ((f"blobs/sha256/{name}", contents[name]) for name in sorted(contents))
    (tmp_path / "b").write_bytes(make_gzip(make_tar([("bundle.json", description.to_bytes()), *members])))
    (failure,) = verify_bundle(tmp_path / "b").failures
    assert (failure.stage, failure.expected, failure.found) == ("structure", wrong, sha256)


def test_a_signature_is_asked_for(home, tmp_path):
    private, public = write_keys(tmp_path)
    _, other = write_keys(tmp_path, "other")
    description = describe(home)
    signatures = sign(description.to_bytes(), [private])
    ours, theirs = Trust(keys=(read_public_key(public),)), Trust(keys=(read_public_key(other),))
    good = verify(home, tmp_path, description=description, signatures=signatures, trust=ours)
    assert (good.verdict, good.signature.state) == ("pass", "signed")
    assert verify(home, tmp_path, signatures=signatures).signature.state == "unchecked"
    assert stages(verify(home, tmp_path, signatures=signatures, trust=theirs)) == [("signature", "signatures.json")]
    assert stages(verify(home, tmp_path, trust=ours)) == [("signature", "signatures.json")]
    detached = tmp_path / "b.sig"
    detached.write_bytes(signatures)
    assert verify(home, tmp_path, trust=replace(ours, detached=detached)).signature.state == "signed"


def test_nothing_is_unpacked_before_the_signature_is_checked(home, tmp_path, monkeypatch):
    monkeypatch.setattr("runtimes.bundle.archive.Archive.unpack", lambda *_: pytest.fail("it was unpacked"))
    _, public = write_keys(tmp_path)
    report = verify(home, tmp_path, trust=Trust(keys=(read_public_key(public),)))
    assert stages(report) == [("signature", "signatures.json")]


def test_nothing_is_loaded_before_the_contents_are_checked(home, tmp_path, monkeypatch):
    """Not even a session is opened on a model whose data lies outside."""
    monkeypatch.setattr("runtimes.bundle.verify.open_onnx", lambda *_: pytest.fail("it was opened"))
    (home / "variants" / "here" / "model.onnx").write_bytes(make_model(external=[("location", "../../../passwd")]))
    report = verify(home, tmp_path)
    assert [stage for stage, _ in stages(report)] == ["contents"]
    assert report.name == "real"


def test_a_model_that_takes_no_tensor_is_a_failure_of_the_contents(home, tmp_path):
    path = home / "variants" / "here" / "model.onnx"
    model = onnx.load_from_string(make_model())
    one = onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT64, None)
    several = onnx.helper.make_sequence_type_proto(one)
    model.graph.input.append(onnx.helper.make_value_info("several", several))
    path.write_bytes(model.SerializeToString())
    report = verify(home, tmp_path)
    assert (report.verdict, stages(report)) == ("fail", [("contents", "model.onnx: several")])


def test_a_bundle_that_does_not_fit_names_every_misfit(home, tmp_path):
    required = replace(describe(home).variants[0].requires, onnxruntime=">=99", memory_bytes=1 << 49)
    report = verify(home, tmp_path, description=describe(home, requires=required))
    assert (report.verdict, report.variants[0].fits, report.variants[0].probe) == ("fail", False, None)
    assert stages(report) == [("fit", "here"), ("fit", "here")]
    assert [(one.expected, bool(one.found), bool(one.cure)) for one in report.failures] == [
        (">=99", True, True),
        (f"{1 << 49:,} bytes", True, True),
    ]


def test_one_variant_that_fits_is_enough(home, tmp_path):
    description = describe(home)
    (here,) = description.variants
    there = replace(here, name="there", requires=replace(here.requires, arch="riscv64"))
    report = verify(home, tmp_path, description=replace(description, variants=(there, here)))
    assert report.verdict == "pass"
    assert [(one.name, one.fits, one.probe is not None) for one in report.variants] == [
        ("there", False, False),
        ("here", True, True),
    ]


def test_an_avx2_machine_refuses_vnni_and_runs_the_avx2_sibling(home, tmp_path, monkeypatch):
    monkeypatch.setattr("runtimes.bundle.machine.detect", lambda: named("avx2"))
    description = describe(home, requires=replace(describe(home).variants[0].requires, arch="x86_64", isa="avx2"))
    (avx2,) = description.variants
    artifact = {**avx2.artifact, "isa": "vnni", "exact_on_any_cpu": False}
    vnni = replace(avx2, name="vnni", artifact=artifact, requires=replace(avx2.requires, isa="vnni"))
    shutil.copytree(home / "variants" / "here", home / "variants" / "vnni")
    both = verify(home, tmp_path, description=replace(description, variants=(vnni, avx2)))
    assert (both.verdict, [one.fits for one in both.variants]) == ("pass", [False, True])
    assert "agrees" in both.variants[1].probe
    (failure,) = verify(home, tmp_path, description=replace(description, variants=(vnni,))).failures
    assert (failure.stage, failure.expected, failure.found) == ("fit", "vnni", "avx2")
    lying = replace(vnni, requires=replace(vnni.requires, isa="avx2"))
    (failure,) = verify(home, tmp_path, description=replace(description, variants=(lying,))).failures
    assert (failure.stage, failure.expected, failure.found) == ("fit", "vnni", "avx2")


def test_other_answers_are_a_failure_of_the_probe(home, tmp_path):
    path = home / "variants" / "here" / "probe" / "outputs.safetensors"
    stored = load_file(path)
    save_file({name: array + np.float32(1e-3) for name, array in stored.items()}, path)
    report = verify(home, tmp_path)
    (failure,) = report.failures
    assert (failure.stage, failure.where) == ("probe", "here")
    assert "atol 1e-05" in failure.expected
    assert "is off at 4 of 4" in failure.found
    assert verify(home, tmp_path, probe=False).verdict == "pass"


def test_a_model_that_does_not_run_is_a_failure_of_the_probe(home, tmp_path):
    path = home / "variants" / "here" / "probe" / "inputs.safetensors"
    save_file({"input_ids": np.full((1, 3), 99, np.int64)}, path)
    report = verify(home, tmp_path)
    assert [stage for stage, _ in stages(report)] == ["probe"]
    assert report.variants[0].probe == "it does not run"


def make_device(**changes):
    arch = detect().arch
    parts = {"name": "dev", "summary": "a device", "arch": arch, "runtimes": ["onnxruntime"], "onnxruntime": ">=1.24"}
    return make_profile({**parts, **changes})


def test_another_device_is_judged_and_nothing_runs(home, tmp_path, monkeypatch):
    monkeypatch.setattr("runtimes.bundle.verify.open_onnx", lambda *_: pytest.fail("it was opened"))
    good = verify(home, tmp_path, device=make_device())
    assert (good.verdict, good.machine, good.variants[0].probe) == ("pass", "dev", None)
    other = "aarch64" if detect().arch == "x86_64" else "x86_64"
    assert stages(verify(home, tmp_path, device=make_device(arch=other))) == [("fit", "here")]
    assert stages(verify(home, tmp_path, device=make_device(onnxruntime=">=1.20"))) == [("fit", "here")]
    small = verify(home, tmp_path, device=make_device(bundle_bytes=100))
    assert [failure.expected for failure in small.failures] == ["at most 100 bytes"]


def test_an_absent_bundle_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError):
        verify_bundle(tmp_path / "absent")


def test_the_report_is_plain_data(home, tmp_path):
    document = {**asdict(verify(home, tmp_path)), "path": "b"}
    assert json.loads(json.dumps(document))["variants"][0]["name"] == "here"
