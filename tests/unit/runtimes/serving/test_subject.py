"""What belongs to a model is what is listed, as it was when its hash was checked."""

import json
from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact import Manifest, read_manifest, write_manifest
from runtimes.bundle.install import install
from runtimes.errors import CorruptArtifact, UsageError
from runtimes.serving.bundle import open_bundle
from runtimes.serving.subject import read_labels

CONFIG = json.dumps({"id2label": {"0": "planted", "1": "planted"}})


def swap(path):
    """Let good mean bad: what somebody would do who may write there."""
    told = path.read_text()
    path.chmod(0o644)
    path.write_text(told.replace("good", "bbad").replace('"bad"', '"good"'))


def label(session):
    return session("a good film").value["label"]


@pytest.fixture(params=["archive", "installed", "exported"])
def opened(request, maker, tmp_path):
    """A bundle, and where its tokenizer and config lie."""
    if request.param == "exported":
        return open_bundle(maker.folder), maker.folder
    path = maker.write(tmp_path / "b.stepdown.tar.gz")
    bundle = open_bundle(path if request.param == "archive" else install(path, tmp_path / "root").path)
    return bundle, bundle.home.shared


def test_a_tokenizer_is_the_one_that_was_checked(opened):
    bundle, folder = opened
    with bundle.session() as session:
        swap(folder / "tokenizer.json")
        assert label(session) == "positive"
    with pytest.raises(CorruptArtifact) as caught:
        bundle.session()
    assert caught.value.where == str(folder / "tokenizer.json")


def test_a_tokenizer_that_is_gone_is_said(opened):
    bundle, folder = opened
    bundle.session().close()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CorruptArtifact) as caught:
        bundle.session()
    assert caught.value.where == str(folder / "tokenizer.json")


def test_the_files_of_an_unpacked_archive_are_checked_for_each_session_but_the_first(maker, tmp_path):
    bundle = open_bundle(maker.write(tmp_path / "b.stepdown.tar.gz"))
    bundle.session().close()
    model = bundle.home.path / "variants" / "cpu" / "model.onnx"
    model.chmod(0o644)
    four, less = (np.float32(value).tobytes() for value in (4, -4))
    model.write_bytes(model.read_bytes().replace(four, less))
    with pytest.raises(CorruptArtifact) as caught:
        bundle.session()
    assert caught.value.where == str(model)


def test_what_a_bundle_does_not_list_is_not_used(maker, tmp_path):
    path = maker.write(tmp_path / "b.stepdown.tar.gz", files={}, labels=())
    place = install(path, tmp_path / "root").path
    (place / "shared").mkdir(exist_ok=True)
    (place / "shared" / "tokenizer.json").write_bytes((maker.folder / "tokenizer.json").read_bytes())
    (place / "shared" / "config.json").write_text(CONFIG)
    with open_bundle(place).session() as session:
        assert session.subject.labels == ()
        with pytest.raises(UsageError, match="no tokenizer"):
            session("good")


def test_what_a_manifest_does_not_list_is_not_used(maker):
    manifest: Manifest = read_manifest(maker.folder)
    listed = tuple(record for record in manifest.files if record.path not in {"tokenizer.json", "config.json"})
    write_manifest(maker.folder, replace(manifest, files=listed))
    (maker.folder / "config.json").write_text(CONFIG)
    with open_bundle(maker.folder).session() as session:
        assert session.subject.labels == ()
        with pytest.raises(UsageError, match="no tokenizer"):
            session("good")


def test_class_names_of_a_listed_config_are_taken(maker, tmp_path):
    bundle = open_bundle(maker.write(tmp_path / "b.stepdown.tar.gz", labels=()))
    with bundle.session() as session:
        assert session.subject.labels == ("negative", "positive")


@pytest.mark.parametrize("content", ["{", "[]", '{"id2label": {"a": "b"}}', "[" * 100_000])
def test_class_names_that_cannot_be_read_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CorruptArtifact, match="class names cannot be read"):
        read_labels(tmp_path)
