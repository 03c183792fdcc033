"""The layout against the rules of the OCI image specification 1.1, and where skopeo is, against that."""

import hashlib
import json
import re
import shutil
import subprocess

import pytest

from exporter.packing.oci import measure_layout, write_layout
from runtimes.bundle.description import parse_description
from runtimes.bundle.oci_layout import ARTIFACT_TYPE
from tests.unit.runtimes.bundle.tiny_bundle import BLOBS, make_description

# descriptor.md: "registered algorithms"; manifest.md: RFC 6838 media types; annotations.md: the grammar of tags.
DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
MEDIA_TYPE = re.compile(r"application/vnd\.[a-z0-9.]+(\+json)?")
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TAG = re.compile(r"[A-Za-z0-9]+([-._:@+/][A-Za-z0-9]+)*")


@pytest.fixture
def layout(tmp_path):
    return write(tmp_path / "layout", signatures=b'{"signatures": []}')


def write(folder, signatures=None, **changes):
    folder.mkdir()
    write_layout(folder, make_description(**changes), BLOBS, signatures)
    return folder


def read_blob(layout, descriptor):
    """Return a blob that is what its descriptor says."""
    assert DIGEST.fullmatch(descriptor["digest"])
    assert MEDIA_TYPE.fullmatch(descriptor["mediaType"])
    data = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert len(data) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
    return data


def read_layout(layout):
    """Follow the layout from its entry as the specification does; return the layers by title."""
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_bytes())
    # Media type and artifact type are optional in an index, and other tools leave them out.
    assert (index["schemaVersion"], index.get("mediaType", INDEX_TYPE)) == (2, INDEX_TYPE)
    (entry,) = index["manifests"]
    assert TAG.fullmatch(entry["annotations"]["org.opencontainers.image.ref.name"])
    manifest = json.loads(read_blob(layout, entry))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, entry["mediaType"])
    assert manifest["artifactType"] == entry.get("artifactType", ARTIFACT_TYPE) == ARTIFACT_TYPE
    assert read_blob(layout, manifest["config"]) == b"{}"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]]
    assert len(set(titles)) == len(titles)
    return dict(zip(titles, (read_blob(layout, layer) for layer in manifest["layers"]), strict=True))


def test_the_index_says_what_it_is(layout):
    index = json.loads((layout / "index.json").read_bytes())
    assert (index["mediaType"], index["manifests"][0]["artifactType"]) == (INDEX_TYPE, ARTIFACT_TYPE)


def test_the_layers_are_the_members_of_the_archive_in_their_order(layout):
    layers = read_layout(layout)
    blobs = {f"blobs/sha256/{sha256}": data for sha256, data in BLOBS.items()}
    assert list(layers) == ["bundle.json", "signatures.json", *sorted(blobs)]
    assert parse_description(layers["bundle.json"]) == make_description()
    assert {name: layers[name] for name in blobs} == blobs


def test_there_is_nothing_else_in_it(layout):
    files = {path.relative_to(layout).as_posix() for path in layout.rglob("*") if path.is_file()}
    # Description, signatures and manifest, index and layout; this bundle's tokenizer is {}, which the config is too.
    assert len(files) == len(BLOBS) + 3 + 2
    assert measure_layout(layout) == sum((layout / name).stat().st_size for name in files)


def test_the_version_is_the_tag(tmp_path):
    for version, tag in ((7, "7"), (None, "latest")):
        index = json.loads((write(tmp_path / tag, version=version) / "index.json").read_bytes())
        assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": tag}


def test_the_same_bundle_gives_the_same_layout(tmp_path):
    found = [
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (write(tmp_path / "one"), write(tmp_path / "two"))
    ]
    assert found[0] == found[1]


def find(program):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program}")
    return found


@pytest.mark.slow
def test_skopeo_reads_and_copies_it(layout, tmp_path):
    skopeo = find("skopeo")
    raw = subprocess.run([skopeo, "inspect", "--raw", f"oci:{layout}:3"], capture_output=True, check=True).stdout
    assert json.loads(raw)["artifactType"] == ARTIFACT_TYPE
    command = [skopeo, "--insecure-policy", "copy", f"oci:{layout}:3", f"oci:{tmp_path / 'copy'}:3"]
    subprocess.run(command, capture_output=True, check=True)
    assert read_layout(tmp_path / "copy") == read_layout(layout)
