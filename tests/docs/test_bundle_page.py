"""docs/bundle.md says what the code does: keys, limits, profiles and media types."""

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from exporter.packing import oci
from runtimes.bundle.archive import Limits
from runtimes.bundle.archive_format import GZIP_HEADER
from runtimes.bundle.contents import MAX_JSON_BYTES, MAX_TEXT_BYTES
from runtimes.bundle.description import BundleDescription, Probe, Rebuild, Requirements, Variant
from runtimes.bundle.oci_layout import ARTIFACT_TYPE
from runtimes.bundle.profiles import list_profiles, make_profile, read_profile
from runtimes.bundle.signature import PREFIX
from runtimes.parity import Tolerance

PAGE = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")


def find_words():
    """Return everything that the page writes as code, and each word of that."""
    code = re.findall(r"`([^`\n]+)`", PAGE)
    return {*code, *(part.lstrip(".") for words in code for part in re.split(r"[ ,<>/]|\.(?=[a-z])", words))}


@pytest.mark.parametrize("part", [BundleDescription, Variant, Requirements, Rebuild, Probe, Tolerance])
def test_every_key_is_on_the_page(part):
    assert {field.name for field in fields(part)} - find_words() == set()


def test_every_profile_is_on_the_page_in_its_own_words():
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", PAGE, flags=re.MULTILINE))
    assert {name: rows[name] for name in list_profiles()} == {
        name: read_profile(name).summary for name in list_profiles()
    }


def test_the_profile_on_the_page_is_one():
    (told,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    profile = make_profile({"name": "camera", **tomllib.loads(told)})
    assert profile.memory_bytes == 200_000_000
    names = {field.name for field in fields(profile)} - {"name"}
    assert names - find_words() - set(tomllib.loads(told)) == set()


def test_the_limits_are_those_of_the_reader():
    limits = Limits()
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", PAGE.partition("### Limits")[2].partition("##")[0], re.MULTILINE))
    assert rows["unpacked, headers included"] == f"{limits.total_bytes >> 30} GiB"
    assert rows["unpacked to packed, past the first MiB"] == str(limits.ratio)
    assert rows["blobs, and files that they become"] == str(limits.members)
    assert rows["`bundle.json`"] == f"{limits.description_bytes >> 20} MiB"
    assert rows["`signatures.json`"].startswith(f"{limits.signatures_bytes >> 10} KiB")
    texts = f"{MAX_JSON_BYTES >> 20} MiB, {MAX_TEXT_BYTES >> 20} MiB"
    assert rows["a JSON file among the shared ones, a text"] == texts


def test_the_fixed_bytes_are_those_of_the_writer():
    assert GZIP_HEADER.hex() in PAGE.replace(" ", "")
    assert PREFIX.decode().strip() in PAGE
    (told,) = re.findall(r"^```json\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert set(json.loads(told)["signatures"][0]) == {"key_id", "algorithm", "signature"}


def test_the_media_types_are_those_of_the_layout():
    for media_type in (ARTIFACT_TYPE, oci.DESCRIPTION_TYPE, oci.SIGNATURES_TYPE, oci.BLOB_TYPE):
        assert f"`{media_type}`" in PAGE
