"""From a bundle to an answer: archives, installed bundles, exported directories; what does not fit is not run."""

import logging
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from runtimes.bundle import fallback
from runtimes.bundle.archive import open_archive
from runtimes.bundle.install import install
from runtimes.bundle.machine import detect_machine
from runtimes.bundle.open_variant import ServeOptions
from runtimes.bundle.trust import Trust
from runtimes.errors import CorruptArtifact, MissingDependency, UsageError
from runtimes.serving.bundle import is_bundle, open_bundle
from tests.unit.runtimes.serving.real_bundle import sha256

MAPS = Path("/proc/self/maps")


@pytest.fixture
def archive(maker, tmp_path):
    return maker.write(tmp_path / "reviews.stepdown.tar.gz")


def place_of(path):
    """The one bundle that lies in a cache."""
    (found,) = (path / "bundles").glob("[0-9a-f]*")
    return found


def ask(bundle, text="a good film", **options):
    with open_bundle(bundle).session(ServeOptions(**options)) as session:
        return session(text).value["label"]


def test_a_bundle_answers_from_its_archive_and_installed_and_as_it_was_exported(archive, maker, tmp_path):
    done = install(archive, tmp_path / "root")
    for path in (
        archive,
        tmp_path / "root" / "reviews",
        tmp_path / "root" / "reviews" / "current",
        done.path,
        maker.folder,
    ):
        with open_bundle(path).session() as session:
            first, second = session.answer(["a good film", "very bad"])
            assert (first.value["label"], second.value["label"]) == ("positive", "negative")
            assert first.text == "a good film"


def test_what_is_known_of_a_bundle_is_said(archive, maker):
    bundle = open_bundle(archive)
    assert (bundle.name, bundle.task) == ("reviews", "text-classification")
    with bundle.session(ServeOptions(threads=1)) as session:
        assert (session.variant, session.subject.max_length) == ("cpu", 16)
        assert session.notes == ("unsigned: nobody vouches for it", "runs cpu (cpu)")
        assert session.run({"input_ids": np.array([[2, 2]])})["logits"].tolist() == [[0.0, 8.0]]
    exported = open_bundle(str(maker.folder))
    assert (exported.name, exported.task) == ("exported", "text-classification")
    with exported.session() as session:
        assert (session.variant, session.notes) == (None, ())


def test_a_text_longer_than_the_bundle_says_is_cut(archive):
    with open_bundle(archive).session() as session:
        assert session(" ".join(["good"] * 50)).value["logits"] == [0.0, 64.0]


def test_pairs_and_a_closed_session(archive):
    with open_bundle(archive).session() as session:
        assert session("good", "bad good").value["logits"] == [4.0, 8.0]
    with pytest.raises(UsageError, match="closed"):
        session("good")


def test_an_archive_is_unpacked_once_and_again_where_the_cache_was_changed(archive, cache):
    assert ask(archive) == "positive"
    model = place_of(cache) / "variants" / "cpu" / "model.onnx"
    made = model.stat().st_ino
    assert ask(archive) == "positive"
    assert model.stat().st_ino == made
    model.write_bytes(model.read_bytes()[::-1])
    assert ask(archive) == "positive"
    (place_of(cache) / "shared" / "tokenizer.json").unlink()
    assert ask(archive) == "positive"
    assert [path.name for path in (cache / "bundles").iterdir() if path.name.startswith(".")] == [".lock"]


def test_a_cache_that_holds_another_bundle_under_this_ones_name_is_unpacked_again(archive, maker, cache, tmp_path):
    """Whole in itself, but not what the archive holds."""
    assert ask(archive) == "positive"
    turned = onnx.load(maker.folder / "onnxruntime" / "model.onnx")
    (weight,) = (one for one in turned.graph.initializer if one.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(-np.eye(2, dtype=np.float32), "weight"))
    onnx.save(turned, tmp_path / "turned.onnx")
    other = maker.write(tmp_path / "other.stepdown.tar.gz", maker.variant("cpu", model=tmp_path / "turned.onnx"))
    place = place_of(cache)
    shutil.rmtree(place)
    with open_archive(other) as opened:
        opened.unpack(place)
    assert ask(archive) == "positive"
    assert ask(other) == "negative"


def test_processes_that_open_at_once_unpack_one_after_the_other(archive, cache):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(archive))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["positive"] * 4
    assert place_of(cache).is_dir()


@pytest.mark.parametrize(
    "path", ["shared/tokenizer.json", "variants/cpu/model.onnx", "variants/cpu/probe/inputs.safetensors"]
)
@pytest.mark.parametrize("how", ["changed", "gone", "link"])
def test_an_installed_bundle_that_was_changed_is_not_run(archive, tmp_path, path, how):
    done = install(archive, tmp_path / "root")
    file = done.path / path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if how == "changed":
        file.write_bytes(data)
    if how == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtifact) as caught:
        ask(done.path)
    assert str(file) in caught.value.where
    assert "install it again" in caught.value.cure


def test_a_variant_that_is_not_run_is_not_looked_at(maker, tmp_path):
    archive = maker.write(
        tmp_path / "b.stepdown.tar.gz", maker.variant("one"), maker.variant("two", files={"a.json": b"{}"})
    )
    done = install(archive, tmp_path / "root")
    (done.path / "variants" / "two" / "a.json").unlink()
    assert ask(done.path) == "positive"


def test_a_damaged_archive_runs_nothing(archive, cache):
    data = bytearray(archive.read_bytes())
    data[-9] ^= 1
    archive.write_bytes(data)
    with pytest.raises(CorruptArtifact):
        ask(archive)
    assert not list((cache / "bundles").glob("[0-9a-f]*"))


def on(monkeypatch, **changes):
    """Let this machine be another one."""
    machine = replace(detect_machine(gpu=False), **{"features": None, **changes})
    monkeypatch.setattr(fallback, "detect_machine_for", lambda _: machine)


def test_the_sibling_for_this_cpu_runs_where_the_first_does_not_fit(maker, tmp_path, monkeypatch, caplog):
    path = maker.write(
        tmp_path / "fat.stepdown.tar.gz",
        maker.variant("x86-64-vnni", arch="x86_64", isa="vnni"),
        maker.variant("x86-64-avx2", arch="x86_64", isa="avx2"),
    )
    for level, runs in (("amx", "x86-64-vnni"), ("vnni", "x86-64-vnni"), ("avx2", "x86-64-avx2")):
        on(monkeypatch, arch="x86_64", level=level)
        with open_bundle(path).session() as session:
            assert session.variant == runs
            assert session("good").value["label"] == "positive"
    assert "x86-64-vnni (cpu) does not run here: its answers would differ" in session.notes[1]
    assert "(expected vnni, found avx2)" in session.notes[1]
    # What a bundle for several CPUs is for is no fallback.
    assert not caplog.records


def test_a_bundle_that_fits_nothing_here_says_what_is_missing(maker, tmp_path, monkeypatch):
    path = maker.write(tmp_path / "b.stepdown.tar.gz", maker.variant("x86-64-vnni", arch="x86_64", isa="vnni"))
    on(monkeypatch, arch="x86_64", level="avx2")
    with pytest.raises(CorruptArtifact, match="nothing of the bundle runs here") as caught:
        open_bundle(path).session()
    assert caught.value.exit_code == 8
    assert "expected vnni, found avx2" in caught.value.what
    assert "--for-isa avx2" in caught.value.cure
    on(monkeypatch, arch="aarch64", level="neon")
    with pytest.raises(CorruptArtifact, match="another kind of CPU"):
        open_bundle(path).session()


def test_one_variant_can_be_asked_for(maker, tmp_path):
    path = maker.write(tmp_path / "b.stepdown.tar.gz", maker.variant("one"), maker.variant("two"))
    with open_bundle(path).session(variant="two") as session:
        assert session.variant == "two"
    with pytest.raises(UsageError, match="no variant 'three'"):
        open_bundle(path).session(variant="three")
    with pytest.raises(UsageError, match="no variants"):
        open_bundle(maker.folder).session(variant="one")


def test_without_cpu_in_its_policy_a_bundle_does_not_run_on_one(maker, tmp_path):
    path = maker.write(tmp_path / "b.stepdown.tar.gz", policy=("plan", "rebuild"))
    with pytest.raises(CorruptArtifact, match="no variant for any step of its policy") as caught:
        open_bundle(path).session()
    assert "policy plan, rebuild" in caught.value.where


def test_what_is_no_bundle(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="there is no bundle"):
            open_bundle(path)
    (tmp_path / "b.stepdown.tar.gz").write_text("hello")
    with pytest.raises(CorruptArtifact):
        open_bundle(tmp_path / "b.stepdown.tar.gz")
    assert is_bundle(tmp_path / "b.stepdown.tar.gz")
    assert not is_bundle(tmp_path)


def test_only_who_is_trusted_is_run(archive, maker, tmp_path):
    cryptography = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from runtimes.bundle.signature import make_public_key

    stranger = make_public_key(cryptography.Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    done = install(archive, tmp_path / "root")
    for path in (archive, done.path):
        with pytest.raises(CorruptArtifact, match="unsigned"):
            open_bundle(path, trust=Trust(keys=(stranger,)))
    with pytest.raises(UsageError, match="only bundles are signed"):
        open_bundle(maker.folder, trust=Trust(keys=(stranger,)))


def write_custom(path):
    """A model with an operator of the sparse kernels' domain."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18, "ai.stepdown": 1]>
        m (float[batch, 4] x) => (float[batch, 4] y) { y = ai.stepdown.Nothing(x) }"""
    )
    onnx.save(model, path)
    return path


def test_kernels_that_the_model_does_not_name_are_not_loaded(maker, tmp_path):
    variant = maker.variant("cpu", files={"kernels/libstepdown_sparse.so": b"\x7fELF evil"})
    for named in (None, {"version": "0.1.0", "sha256": "0" * 64}):
        artifact = {**variant.artifact, "sparse_kernels": named}
        path = maker.write(tmp_path / "b.stepdown.tar.gz", replace(variant, artifact=artifact))
        with pytest.raises(CorruptArtifact, match="kernels"):
            open_bundle(path).session()


def write_kernels(maker, tmp_path, data, **changes):
    """An unpacked bundle that brings these bytes as kernels."""
    from runtimes.bundle.home import read_home

    named = {"version": "0.1.0", "sha256": sha256(data)}
    model = write_custom(tmp_path / "custom.onnx")
    variant = maker.variant(
        "cpu", model=model, files={"kernels/libstepdown_sparse.so": data}, artifact={"sparse_kernels": named}
    )
    with open_archive(maker.write(tmp_path / "b.stepdown.tar.gz", variant, **changes)) as archive:
        archive.unpack(tmp_path / "home")
    return read_home(tmp_path / "home")


def test_kernels_of_a_stranger_are_loaded_where_that_is_allowed_only(maker, tmp_path):
    """A library that is none is refused by the loader: so where that happens, it was tried."""
    home = write_kernels(maker, tmp_path, b"not a library")
    with pytest.raises(CorruptArtifact, match="code of who packed it") as refused:
        open_bundle(home.path).session()
    assert "--key" in refused.value.cure
    assert "--allow-host-code" in refused.value.cure
    with pytest.raises(MissingDependency) as tried:
        open_bundle(home.path).session(ServeOptions(allow_host_code=True))
    assert str(home.path) in tried.value.where


def test_kernels_of_who_is_trusted_are_loaded(maker, tmp_path):
    pytest.importorskip("cryptography")
    from runtimes.bundle.signature import read_public_key, sign
    from tests.unit.runtimes.bundle.test_signature import write_keys

    home = write_kernels(maker, tmp_path, b"not a library")
    private, public = write_keys(tmp_path)
    (home.path / "signatures.json").write_bytes(sign(home.description_bytes, [private]))
    with pytest.raises(CorruptArtifact, match="code of who packed it"):
        open_bundle(home.path).session()
    with pytest.raises(MissingDependency):
        open_bundle(home.path, trust=Trust(keys=(read_public_key(public),))).session()


def test_where_the_kernels_are_those_of_this_installation_its_own_are_loaded(maker, tmp_path, monkeypatch):
    home = write_kernels(maker, tmp_path, b"not a library")
    (tmp_path / "ours.so").write_bytes(b"not a library")
    monkeypatch.setattr("runtimes.bundle.open_variant.library_path", lambda: tmp_path / "ours.so")
    with pytest.raises(MissingDependency) as tried:
        open_bundle(home.path).session()
    assert tried.value.where == str(tmp_path / "ours.so")


def test_a_bundle_that_needs_kernels_and_brings_none_takes_those_here_if_they_do(maker, tmp_path):
    named = {"version": "99.0.0", "sha256": "0" * 64}
    artifact = {"sparse_kernels": named, "requires": {"onnxruntime": ">=1.24", "stepdown": ">=99.0.0"}}
    path = maker.write(tmp_path / "b.stepdown.tar.gz", maker.variant("cpu", artifact=artifact))
    with pytest.raises((CorruptArtifact, MissingDependency), match="sparse kernels"):
        open_bundle(path).session()


def test_nothing_is_logged_where_the_first_choice_runs(archive, caplog):
    with caplog.at_level(logging.DEBUG), open_bundle(archive).session():
        pass
    assert not caplog.records


def test_a_cache_that_cannot_be_written_is_said(archive, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEPDOWN_CACHE", os.fspath(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be written"):
        open_bundle(archive)


def write_large_table(folder):
    """A model that looks up a table which lies beside it."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        lookup (int64[batch, sequence] input_ids) => (float[batch, sequence, 256] y) {
            y = Gather <axis = 0> (table, input_ids)
        }"""
    )
    table = np.arange(1000 * 256, dtype=np.float32).reshape(1000, 256)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    path = folder / "lookup.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path


@pytest.mark.skipif(not MAPS.exists(), reason="needs Linux")
def test_weights_beside_the_graph_are_mapped_and_not_read(maker, tmp_path):
    model = write_large_table(tmp_path)
    files = {"model.onnx.data": (tmp_path / "model.onnx.data").read_bytes()}
    path = maker.write(
        tmp_path / "b.stepdown.tar.gz", maker.variant("cpu", model=model, files=files), task=None, labels=()
    )
    done = install(path, tmp_path / "root")
    with open_bundle(done.path).session() as session:
        assert str(done.path / "variants" / "cpu" / "model.onnx.data") in MAPS.read_text()
        assert session.run({"input_ids": np.array([[3]])})["y"][0, 0, 1] == 3 * 256 + 1
