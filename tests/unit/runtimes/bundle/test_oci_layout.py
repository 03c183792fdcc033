import hashlib
import json

import pytest

from exporter.packing.oci import write_layout
from runtimes.bundle.archive import open_archive
from runtimes.bundle.archive_writer import write_archive
from runtimes.bundle.oci_layout import archive_layout, is_layout
from runtimes.errors import CorruptArtifact
from tests.unit.runtimes.bundle.tiny_bundle import BLOBS, make_description

TITLE = "org.opencontainers.image.title"
SIGNATURES = b'{"schema": 1, "signatures": []}\n'


@pytest.fixture
def layout(tmp_path):
    folder = tmp_path / "layout"
    folder.mkdir()
    write_layout(folder, make_description(), BLOBS, SIGNATURES)
    return folder


def read_json(path):
    return json.loads(path.read_bytes())


def replace_blob(layout, digest, document):
    """Put another document in a blob's place and return its digest."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).unlink()
    sha256 = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / sha256).write_bytes(data)
    return f"sha256:{sha256}", len(data)


def change_manifest(layout, change):
    """Let ``change`` edit the manifest, and the index name what came of it."""
    index = read_json(layout / "index.json")
    entry = index["manifests"][0]
    manifest = read_json(layout / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:"))
    change(manifest)
    entry["digest"], entry["size"] = replace_blob(layout, entry["digest"], manifest)
    (layout / "index.json").write_text(json.dumps(index))


def refuse(layout, match):
    output = layout.with_name("out.tar.gz")
    with pytest.raises(CorruptArtifact, match=match):
        archive_layout(layout, output)
    assert not output.exists()


def test_the_archive_is_what_the_packer_writes(layout, tmp_path):
    assert archive_layout(layout, tmp_path / "again.tar.gz") == make_description()
    write_archive(tmp_path / "direct.tar.gz", make_description(), BLOBS, SIGNATURES)
    assert (tmp_path / "again.tar.gz").read_bytes() == (tmp_path / "direct.tar.gz").read_bytes()
    with open_archive(tmp_path / "again.tar.gz") as archive:
        assert archive.signatures == SIGNATURES


def test_a_folder_that_is_no_layout_is_known(layout, tmp_path):
    assert is_layout(layout)
    assert not is_layout(tmp_path)


@pytest.mark.parametrize("sha256", [*BLOBS, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"])
def test_a_blob_that_is_missing_or_another_is_refused(layout, sha256):
    path = layout / "blobs" / "sha256" / sha256
    size = path.stat().st_size
    path.write_bytes(b"x" * size)
    refuse(layout, sha256)
    path.unlink()
    refuse(layout, f"{sha256} is missing")


def test_a_description_that_is_not_what_its_digest_says_is_refused(layout):
    sha256 = hashlib.sha256(make_description().to_bytes()).hexdigest()
    (layout / "blobs" / "sha256" / sha256).write_bytes(make_description(version=99).to_bytes())
    refuse(layout, "not what its digest says")


def test_a_description_in_another_form_is_refused(layout):
    def change(manifest):
        other = json.dumps(json.loads(make_description().to_bytes())).encode()
        layer = manifest["layers"][0]
        layer["digest"], layer["size"] = replace_blob(layout, layer["digest"], other)

    change_manifest(layout, change)
    refuse(layout, "not written as a bundle's is")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda manifest: manifest.pop("artifactType"), "holds 0 bundles"),
        (lambda manifest: manifest.pop("layers"), "does not hold together"),
        (lambda manifest: manifest["layers"].pop(0), "does not hold together"),
        (lambda manifest: manifest["layers"][0].pop("annotations"), "does not hold together"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:../../../etc/passwd"), "is no digest"),
        (lambda manifest: manifest["layers"][0].update(digest="sha512:" + "a" * 64), "is no digest"),
        (lambda manifest: manifest["layers"][0].update(digest=7), "does not hold together"),
        (lambda manifest: manifest["layers"][-1].update(digest=[]), "does not hold together"),
        (lambda manifest: manifest["layers"][-1].update(annotations={TITLE: 7}), "does not hold together"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(layout, change, match):
    change_manifest(layout, change)
    refuse(layout, match)


def add_layer(manifest, title, **changes):
    layer = manifest["layers"][-1]
    manifest["layers"].append({**layer, "annotations": {TITLE: title}, **changes})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda manifest: add_layer(manifest, "bundle.json"), "two layers are called 'bundle.json'"),
        (lambda manifest: manifest["layers"].append(manifest["layers"][-1]), "two layers are called 'blobs"),
        (lambda manifest: add_layer(manifest, "run.sh"), "not the bundle's: 'run.sh'"),
        (lambda manifest: add_layer(manifest, "blobs/sha256/" + "0" * 64), "not the bundle's: 'blobs/sha256/0000"),
        (lambda manifest: manifest["layers"][-1].update(digest="sha256:" + "0" * 64), "not the bundle's: 'blobs"),
        (lambda manifest: manifest["layers"].pop(), "not the bundle's: 'blobs"),
    ],
)
def test_layers_are_the_members_of_the_archive(layout, change, match):
    change_manifest(layout, change)
    refuse(layout, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "cannot be read"),
        ("{}", "does not hold together"),
        ("[]", "does not hold together"),
        ('{"manifests": [7]}', "does not hold together"),
        ('{"manifests": []}', "holds 0 bundles"),
        ('{"a": 1, "a": 2}', "there twice"),
    ],
)
def test_an_index_that_does_not_hold_together_is_refused(layout, text, match):
    (layout / "index.json").write_text(text)
    refuse(layout, match)


def test_two_bundles_are_one_too_many(layout):
    index = read_json(layout / "index.json")
    index["manifests"] *= 2
    (layout / "index.json").write_text(json.dumps(index))
    refuse(layout, "holds 2 bundles")


def test_a_document_beyond_the_limit_is_refused(layout):
    (layout / "index.json").write_text(" " * (5 << 20))
    refuse(layout, "larger than")
