"""From a bundle of a decoder to text: the same tokens as from its export, and every refusal with its cure."""

import builtins
import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtimes.bundle import fallback
from runtimes.bundle.install import InstallOptions, install, roll_back
from runtimes.bundle.machine import detect_machine
from runtimes.bundle.open_variant import ServeOptions
from runtimes.bundle.signature import read_public_key
from runtimes.bundle.trust import Trust
from runtimes.bundle.verify import VerifyOptions, verify_bundle
from runtimes.errors import CorruptArtifact, MissingDependency, UsageError
from runtimes.generation.generator import open_generator
from runtimes.generation.options import GenerationOptions
from runtimes.serving.bundle import open_bundle
from tests.unit.runtimes.bundle.decoder_bundle import change, edit_config, pack_decoder, read_archive, read_own
from tests.unit.runtimes.bundle.test_signature import write_keys
from tests.unit.runtimes.generation.tiny_decoder import CACHE, seal, write_artifact, write_export

SHORT = GenerationOptions(max_new_tokens=12)
TALK = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """(the archive, the exported directory)."""
    return pack_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture
def archive(packed):
    return packed[0]


@pytest.fixture(scope="module")
def expected(packed):
    with open_generator(packed[1], threads=1) as generator:
        return generator.complete(("Hello", TALK), SHORT)


def test_a_bundle_writes_as_its_export_from_anywhere(archive, expected, tmp_path):
    done = install(archive, tmp_path / "root")
    for path in (archive, tmp_path / "root" / "words", done.path):
        with open_generator(path, threads=1) as generator:
            assert generator.complete(("Hello", TALK), SHORT) == expected
            streamed = [token.id for token in generator.generate("Hello", SHORT)]
            assert streamed == list(expected[0].ids)
        with open_bundle(path).generator(ServeOptions(threads=1)) as generator:
            assert generator.notes == ("unsigned: nobody vouches for it", "runs x86-64 (cpu)")
            assert generator.complete(("Hello", TALK), SHORT) == expected


def test_an_export_is_opened_by_the_same_words(packed, expected):
    with open_bundle(packed[1]).generator() as generator:
        assert generator.complete(("Hello", TALK), SHORT) == expected
    with pytest.raises(UsageError, match="no variants"):
        open_bundle(packed[1]).generator(variant="x86-64")


def test_a_session_of_a_decoder_takes_tensors_and_no_texts(archive):
    with open_bundle(archive).session() as session:
        feeds = {"input_ids": np.array([[40]]), "attention_mask": np.array([[1]]), "position_ids": np.array([[0]])}
        assert session.run({**feeds, **CACHE.empty(1)})["logits"].shape[:2] == (1, 1)
        with pytest.raises(UsageError, match="token by token") as refused:
            session("Hello")
    assert ".generator()" in refused.value.cure


def test_a_bundle_that_does_not_generate_says_so(maker, tmp_path):
    bundle = maker.write(tmp_path / "reviews.stepdown.tar.gz")
    for opening in (open_bundle(bundle).generator, lambda: open_generator(bundle), open_bundle(maker.folder).generator):
        with pytest.raises(UsageError, match="its task is text-classification") as refused:
            opening()
        assert ".session()" in refused.value.cure


def test_a_signature_is_asked_for_of_bundles_alone(packed, tmp_path):
    archive, exported = packed
    trust = Trust(keys=(read_public_key(write_keys(tmp_path)[1]),))
    with pytest.raises(CorruptArtifact, match="unsigned"):
        open_generator(archive, trust=trust)
    for path in (exported, exported / "onnxruntime"):
        with pytest.raises(UsageError, match="only bundles are signed"):
            open_generator(path, trust=trust)


@pytest.mark.parametrize(
    "path",
    ["shared/tokenizer.json", "shared/chat_template.jinja", "variants/x86-64/genai_config.json"],
)
def test_an_installed_decoder_that_was_changed_does_not_run(archive, tmp_path, path):
    file = install(archive, tmp_path / "root").path / path
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    with pytest.raises(CorruptArtifact) as refused:
        open_generator(tmp_path / "root" / "words")
    assert str(file) in refused.value.where
    (failure,) = verify_bundle(tmp_path / "root" / "words" / "current").failures
    assert (failure.stage, failure.where) == ("structure", str(file))


def test_a_template_that_nobody_lists_is_not_looked_at(archive, tmp_path):
    gone = {"chat_template.jinja": None, "tokenizer_config.json": None}
    bundle = change(archive, tmp_path / "b.stepdown.tar.gz", shared=gone)
    home = install(bundle, tmp_path / "root").path
    home.joinpath("shared").chmod(0o755)
    (home / "shared" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with open_generator(home) as generator:
        assert not generator.has_chat_template


def test_a_home_whose_configuration_nobody_checked_is_checked_when_it_is_opened(archive, tmp_path):
    """Who lays files out by hand passes by the check of contents; this one runs no library all the same."""
    home = install(archive, tmp_path / "root").path.rename(tmp_path / "home")

    def name_a_library(told):
        told["model"]["decoder"]["session_options"]["custom_ops_library"] = "evil.so"

    config = edit_config(archive, name_a_library)
    bundle = change(archive, tmp_path / "b.stepdown.tar.gz", own={"genai_config.json": config})
    description, _ = read_archive(bundle)
    for path, data in (("variants/x86-64/genai_config.json", config), ("bundle.json", description.to_bytes())):
        (home / path).chmod(0o644)
        (home / path).write_bytes(data)
    with pytest.raises(CorruptArtifact, match="says this, and nothing else"):
        open_generator(home)


def make_tokenizer(archive):
    """The same words, of which two are each other's tokens."""
    description, blobs = read_archive(archive)
    told = json.loads(blobs[description.files["tokenizer.json"]])
    words = told["model"]["vocab"]
    words["l"], words["o"] = words["o"], words["l"]
    return json.dumps(told).encode()


def test_a_tokenizer_of_another_model_is_found_out_by_the_probe(archive, tmp_path):
    bundle = change(archive, tmp_path / "b", shared={"tokenizer.json": make_tokenizer(archive)})
    (failure,) = verify_bundle(bundle).failures
    assert failure.stage == "probe"
    assert "the tokenizer gives other tokens" in failure.what
    assert failure.expected != failure.found
    assert "tokenizer of this very model" in failure.cure


def test_weights_of_another_model_are_found_out_by_the_probe(archive, tmp_path):
    folder = write_export(tmp_path / "other", seed=5)
    bundle = change(archive, tmp_path / "b", own={"model.onnx": (folder / "model.onnx").read_bytes()})
    (failure,) = verify_bundle(bundle).failures
    assert (failure.stage, failure.where) == ("probe", "x86-64")
    assert "is another, and not for want of exact arithmetic" in failure.what
    assert failure.cure


def on(monkeypatch, **changes):
    """Let this machine be another one."""
    machine = replace(detect_machine(gpu=False, generation=True), **{"features": None, **changes})
    for place in ("runtimes.bundle.verify", "runtimes.bundle.install", "runtimes.bundle.fallback"):
        monkeypatch.setattr(f"{place}.detect_machine_for", lambda _: machine)


@pytest.mark.parametrize(("found", "said"), [(None, "is not there"), ("0.17.2", "is too old")])
def test_a_device_without_what_generates_is_told_how_to_get_it(archive, tmp_path, monkeypatch, found, said):
    assert fallback.detect_machine_for(read_archive(archive)[0].variants).genai is not None
    on(monkeypatch, genai=found)
    report = verify_bundle(archive)
    assert [(one.stage, one.expected, one.found) for one in report.failures] == [("fit", ">=0.18", found or "none")]
    assert said in report.failures[0].what
    for opening in (lambda: open_generator(archive), lambda: install(archive, tmp_path / "root")):
        with pytest.raises(CorruptArtifact, match=said) as refused:
            opening()
        assert "stepdown[generate]" in refused.value.cure
        assert refused.value.exit_code == 8


def test_a_package_that_is_there_and_does_not_load_is_told(archive, monkeypatch):
    from runtimes.generation import genai

    genai.import_genai.cache_clear()
    load = builtins.__import__

    def refuse(name, *rest):
        if name == "onnxruntime_genai":
            raise ImportError("libonnxruntime-genai.so: cannot open")
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match="not to be had") as refused:
        open_generator(archive)
    assert "stepdown[generate]" in refused.value.cure
    (failure,) = verify_bundle(archive).failures
    assert failure.stage == "probe"


def test_a_device_without_jinja_is_told(archive, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setitem(__import__("sys").modules, "jinja2.sandbox", None)
    with pytest.raises(MissingDependency, match="jinja2 is not installed") as refused:
        verify_bundle(archive)
    assert "stepdown[generate]" in refused.value.cure


def test_versions_are_installed_and_gone_back_to(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "second"
    (folder / "exported").mkdir(parents=True)
    write_artifact(folder / "exported")
    path = folder / "exported" / "onnxruntime" / "model.onnx"
    path.write_bytes((write_export(tmp_path / "other", seed=5) / "model.onnx").read_bytes())
    seal(folder / "exported")
    bundles = [pack_decoder(tmp_path / name, version=number)[0] for number, name in ((1, "first"), (2, "second"))]
    answers = []
    for bundle in bundles:
        install(bundle, root)
        with open_generator(root / "words", threads=1) as generator:
            answers.append(generator.complete(("Hello",), SHORT))
    assert answers[0] != answers[1]
    with pytest.raises(CorruptArtifact, match="version 2 is installed"):
        install(bundles[0], root)
    roll_back(root, "words")
    with open_generator(root / "words", threads=1) as generator:
        assert generator.complete(("Hello",), SHORT) == answers[0]


def test_the_variant_for_this_cpu_writes(tmp_path, monkeypatch, expected):
    bundle, _ = pack_decoder(tmp_path, "x86-64-vnni", "x86-64-avx2", "arm64-neon")
    description, _ = read_archive(bundle)
    assert [variant.name for variant in description.variants] == ["arm64-neon", "x86-64-vnni", "x86-64-avx2"]
    assert len({variant.files["model.onnx"] for variant in description.variants}) == 1
    for level, runs in (("amx", "x86-64-vnni"), ("avx2", "x86-64-avx2")):
        on(monkeypatch, arch="x86_64", level=level)
        with open_bundle(bundle).generator(ServeOptions(threads=1)) as generator:
            assert generator.layout.directory.name == runs
            assert generator.complete(("Hello", TALK), SHORT) == expected
        with open_bundle(bundle).generator(variant="x86-64-avx2") as generator:
            assert generator.layout.directory.name == "x86-64-avx2"
    assert any("x86-64-vnni (cpu) does not run here" in note for note in generator.notes) is False
    on(monkeypatch, arch="x86_64", level="baseline")
    with pytest.raises(CorruptArtifact, match="nothing of the bundle runs here"):
        open_generator(bundle)
    with pytest.raises(UsageError, match="no variant 'toaster'"):
        open_bundle(bundle).generator(variant="toaster")


def test_weights_are_mapped_and_not_read(tmp_path):
    exported = tmp_path / "exported"
    write_artifact(exported)
    path = exported / "onnxruntime" / "model.onnx"
    model = onnx.load(path)
    # Rows that no text asks for, so that there is something to map.
    (table,) = (one for one in model.graph.initializer if one.name == "embedding")
    wide = np.random.default_rng(0).random((1 << 15, 16), np.float32)
    wide[: table.dims[0]] = numpy_helper.to_array(table)
    table.CopyFrom(numpy_helper.from_array(wide, "embedding"))
    onnx.save(model, path)
    seal(exported)
    archive, _ = pack_decoder(tmp_path)
    assert "model.onnx.data" in read_archive(archive)[0].variants[0].files
    home = install(archive, tmp_path / "root", InstallOptions()).path
    with open_generator(home, threads=1) as generator:
        assert f"{home}/variants/x86-64/model.onnx.data" in Path("/proc/self/maps").read_text(encoding="utf-8")
        assert len(generator.complete(("Hello",), SHORT)[0].ids) == 12


def test_a_description_for_a_device_says_what_it_must_have(archive):
    bill = json.loads(read_archive(archive)[1][read_archive(archive)[0].files["sbom.cdx.json"]])
    needed = {part["name"]: part for part in bill["components"] if part["type"] == "library"}
    assert {"onnxruntime", "onnxruntime-genai", "jinja2", "tokenizers", "numpy"} <= set(needed)
    assert needed["onnxruntime-genai"]["purl"] == "pkg:pypi/onnxruntime-genai"
    assert read_own(archive, "genai_config.json")
    assert verify_bundle(archive, VerifyOptions(probe=True)).variants[0].probe.startswith("48 of 48 tokens as stored")
