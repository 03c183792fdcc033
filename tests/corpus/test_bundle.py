"""Every architecture of the corpus, exported for every target, packs into a bundle that verifies where it fits."""

import numpy as np
import pytest

from bench.subjects.texts import encode_texts, open_tokenizer, select_feeds
from exporter.options import ExportOptions, TensorRtOptions
from exporter.packing.options import PackOptions
from exporter.packing.pack import pack
from exporter.pipeline import export
from exporter.progress import SilentProgress
from runtimes.bundle.profiles import read_profile
from runtimes.bundle.verify import VerifyOptions, verify_bundle
from runtimes.errors import UnsupportedModel
from runtimes.isa import detect, named
from runtimes.serving.bundle import open_bundle
from runtimes.trt.options import BuildOptions
from runtimes.trt.runtime import TensorRt
from tests.corpus.architectures import CASES
from tests.corpus.test_export import _REFUSED

pytestmark = pytest.mark.slow
NAMES = [name for name, case in CASES.items() if case.why_not is None and case.model_type]
on_vnni = pytest.mark.skipif(detect().level not in {"vnni", "amx"}, reason="this CPU does not run the VNNI variant")


@pytest.fixture
def make(case_model, tmp_path):
    """``make(name, folder, **changes)``: the case as ``export`` writes it, untimed."""
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"w{i} w{i + 1} w{i * 7 % 100} w{i * 13 % 90} and w{i}\n" for i in range(24)))

    def call(name, folder, **changes):
        parts = {"calibration_data": str(texts), "precision": "int8", "max_drop": 0.5, **changes}
        export(ExportOptions(model=case_model(name), output=tmp_path / folder, **parts), SilentProgress())
        return tmp_path / folder

    return call


def pack_for(exports, devices, output):
    return pack(PackOptions(exports=tuple(exports), devices=tuple(devices), output=output), SilentProgress()).output


def judge(bundle, profile):
    return verify_bundle(bundle, VerifyOptions(device=read_profile(profile))).verdict


@on_vnni
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_for_cpus_verifies_and_its_variants_answer_alike(make, tmp_path, monkeypatch, name):
    """One for VNNI is refused on an AVX2 machine; its AVX2 sibling runs there, and answers the same."""
    exports = [make(name, isa, for_isa=isa) for isa in ("vnni", "avx2")]
    both = pack_for(exports, ["x86-64-vnni", "x86-64-avx2"], tmp_path / "both.stepdown.tar.gz")
    report = verify_bundle(both)
    assert (report.verdict, report.failures) == ("pass", ())
    assert all(variant.fits and "agrees" in variant.probe for variant in report.variants)
    alone = pack_for(exports[:1], ["x86-64-vnni"], tmp_path / "alone.stepdown.tar.gz")
    assert [judge(both, "x86-64-avx2"), judge(alone, "x86-64-avx2"), judge(alone, "x86-64-amx")] == [
        *("pass", "fail", "pass")
    ]
    tokenizer = open_tokenizer(exports[0] / "tokenizer.json", max_length=32)
    feeds = encode_texts(tokenizer, ["w3 w4 w21 w39 and w3", "w8 w9 w56 w14 and w8"])
    answers = [_answer(both, feeds, tmp_path, variant) for variant in ("x86-64-vnni", "x86-64-avx2")]
    assert _cosine(*answers) > 0.98
    monkeypatch.setattr("runtimes.bundle.machine.detect", lambda: named("avx2"))
    there = verify_bundle(both)
    assert (there.verdict, [variant.fits for variant in there.variants]) == ("pass", [False, True])
    assert [failure.stage for failure in verify_bundle(alone).failures] == ["fit"]


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_for_a_gpu_verifies_for_it(make, tmp_path, name):
    installed = TensorRt().why_cannot_build() is None
    tensorrt = TensorRtOptions(lower_only=not installed, build=BuildOptions(sms=(89,) if installed else ()))
    if installed and name in _REFUSED:
        with pytest.raises(UnsupportedModel, match=_REFUSED[name]):
            make(name, "gpu", targets=("tensorrt",), tensorrt=tensorrt)
        return
    exported = make(name, "gpu", targets=("tensorrt",), tensorrt=tensorrt)
    bundle = pack_for([exported], ["rtx-40"], tmp_path / "gpu.stepdown.tar.gz")
    assert [judge(bundle, "rtx-40"), judge(bundle, "x86-64-amx"), judge(bundle, "jetson-orin")] == [
        *("pass", "fail", "fail")
    ]
    if TensorRt().why_unavailable() is not None:
        report = verify_bundle(bundle)
        assert {misfit.part for variant in report.variants for misfit in variant.misfits} >= {"gpu"}
        assert report.verdict == "fail"


def _answer(bundle, feeds, tmp_path, variant):
    with open_bundle(bundle, cache=tmp_path / "cache").session(variant=variant) as session:
        return session.run(select_feeds(session.subject.session.inputs, feeds))


def _cosine(left, right):
    pairs = ((left[name].astype(np.float64).ravel(), right[name].astype(np.float64).ravel()) for name in left)
    return min(float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in pairs)
